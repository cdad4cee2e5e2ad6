package cluster_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/cluster"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// point is how far a member is.
type point struct {
	index    uint64
	revision int64
}

// TestDivergence: only members that stand still at one index prove anything.
func TestDivergence(t *testing.T) {
	for name, c := range map[string]struct {
		at   func(member int, asked int64) point
		want string // "": nothing is proved
	}{
		"Diverged": {func(m int, _ int64) point { return point{9, []int64{5, 7, 7}[m]} },
			"at raft index 9 one is at revision 5, the other at 7"},
		"Agreed": {func(int, int64) point { return point{9, 7} }, ""},
		"Behind": {func(m int, _ int64) point { return point{[]uint64{7, 9, 9}[m], []int64{5, 7, 7}[m]} }, ""},
		// One has received a whole database, and counts its entries only with the next
		// one.
		"Received": {func(m int, _ int64) point { return point{[]uint64{4, 4, 9}[m], []int64{7, 2, 7}[m]} }, ""},
		// The index of one is read later than its revision.
		"Moving": {func(m int, n int64) point {
			if m == 0 {
				return point{8 + uint64(n)%2, 7}
			}
			return point{9, 6}
		}, ""},
		// The first two readings see a change whose entry is not counted yet.
		"HeldUp": {func(m int, n int64) point {
			if m == 0 && n < 4 {
				return point{9, 8}
			}
			return point{9, 7}
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var members []cluster.Candidate
			var urls []string
			for m := range 3 {
				var asked atomic.Int64
				first := c.at(m, 0)
				url := testserver.StartFakeMember(t, testserver.FakeMember{
					Status: func(context.Context, *pb.StatusRequest) (*pb.StatusResponse, error) {
						p := c.at(m, asked.Add(1)-1)
						return &pb.StatusResponse{Header: &pb.ResponseHeader{MemberId: uint64(m) + 1, Revision: p.revision},
							RaftAppliedIndex: p.index}, nil
					}})
				urls = append(urls, url)
				members = append(members, cluster.Candidate{Endpoint: url, MemberID: backup.MemberID(m) + 1,
					AppliedIndex: first.index, Revision: backup.Revision(first.revision)})
			}
			got := testserver.Connect(t, cluster.Config{Endpoints: urls}).Divergence(t.Context(), members)
			if text := strings.Join(got, "\n"); c.want == "" && text != "" || !strings.Contains(text, c.want) {
				t.Errorf("got %q, want %q", got, c.want)
			}
		})
	}
}

// TestDoubtful: lag alone is no reason to doubt.
func TestDoubtful(t *testing.T) {
	for _, c := range []struct {
		members []point
		want    bool
	}{
		{[]point{{9, 7}, {9, 7}, {9, 7}}, false},
		{[]point{{9, 7}, {8, 6}}, false},
		{[]point{{9, 7}, {8, 7}}, false}, // an entry that is no write
		{[]point{{9, 7}, {9, 6}}, true},
		{[]point{{9, 7}, {10, 6}}, true},
		{[]point{{9, 7}}, false},
	} {
		var members []cluster.Candidate
		for _, p := range c.members {
			members = append(members, cluster.Candidate{AppliedIndex: p.index, Revision: backup.Revision(p.revision)})
		}
		slices.Reverse(members)
		if got := cluster.Doubtful(members); got != c.want {
			t.Errorf("%v: got %v", c.members, got)
		}
	}
}

// TestHashKVNow: an answer about another revision than the one asked for is none.
func TestHashKVNow(t *testing.T) {
	for name, c := range map[string]struct {
		before, hashed, after int64
		ok                    bool
	}{
		"3.6":      {7, 7, 7, true},
		"3.6Moved": {7, 8, 8, false},
		"3.6After": {7, 7, 8, true},
		"3.5":      {7, 0, 7, true},
		"3.5Moved": {7, 0, 8, false},
		"Before":   {6, 0, 7, false},
		"Behind":   {6, 6, 6, false},
	} {
		header := func(rev int64) *pb.ResponseHeader { return &pb.ResponseHeader{MemberId: 1, Revision: rev} }
		url := testserver.StartFakeMember(t, testserver.FakeMember{
			Status: func(context.Context, *pb.StatusRequest) (*pb.StatusResponse, error) {
				return &pb.StatusResponse{Header: header(c.before)}, nil
			},
			HashKV: func(_ context.Context, r *pb.HashKVRequest) (*pb.HashKVResponse, error) {
				if r.Revision != 0 {
					return nil, fmt.Errorf("asked for revision %d", r.Revision)
				}
				return &pb.HashKVResponse{Header: header(c.after), Hash: 42, HashRevision: c.hashed, CompactRevision: 5}, nil
			}})
		got, err := testserver.Connect(t, cluster.Config{Endpoints: []string{url}}).HashKVNow(
			t.Context(), cluster.Candidate{Endpoint: url, MemberID: 1}, 7)
		want := backup.HashKV{Hash: 42, Revision: 7, CompactRevision: 5}
		if c.ok != (err == nil) || c.ok && got != want {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
	}
}
