package snapshot_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/snapshot/compare"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest/mem"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// recorder stands before the members of a real cluster, and records who is asked for
// HashKV.
type recorder struct {
	real *testserver.Cluster
	urls []string

	mu     sync.Mutex // guards what follows
	asked  []backup.MemberID
	busy   int // questions that are being answered
	beside int // questions that began meanwhile
}

// record starts one relay for each member.
func record(t *testing.T, real *testserver.Cluster) *recorder {
	t.Helper()
	r := &recorder{real: real}
	for _, m := range real.Members {
		client, err := clientv3.New(clientv3.Config{Endpoints: []string{m.ClientURL}, DialTimeout: 10 * time.Second,
			DialOptions: []grpc.DialOption{ // a member that is back is seen at once
				grpc.WithDefaultCallOptions(grpc.WaitForReady(true)),
				grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: 50 * time.Millisecond,
					MaxDelay: 50 * time.Millisecond}, MinConnectTimeout: time.Second}),
			}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = client.Close() })
		remote := pb.NewMaintenanceClient(client.ActiveConnection())
		r.urls = append(r.urls, testserver.StartFakeMember(t, testserver.FakeMember{
			Status: func(ctx context.Context, q *pb.StatusRequest) (*pb.StatusResponse, error) {
				return remote.Status(ctx, q)
			},
			MemberList: func(ctx context.Context, q *pb.MemberListRequest) (*pb.MemberListResponse, error) {
				list, err := pb.NewClusterClient(client.ActiveConnection()).MemberList(ctx, q)
				for _, one := range list.GetMembers() { // nobody goes round the relays
					one.ClientURLs = nil
				}
				return list, err
			},
			Range: func(ctx context.Context, q *pb.RangeRequest) (*pb.RangeResponse, error) {
				return pb.NewKVClient(client.ActiveConnection()).Range(ctx, q)
			},
			HashKV: func(ctx context.Context, q *pb.HashKVRequest) (*pb.HashKVResponse, error) {
				st, err := remote.Status(ctx, &pb.StatusRequest{})
				if err != nil {
					return nil, err
				}
				defer r.begin(backup.MemberID(st.Header.GetMemberId()))()
				return remote.HashKV(ctx, q)
			},
			Snapshot: func(q *pb.SnapshotRequest, to grpc.ServerStreamingServer[pb.SnapshotResponse]) error {
				from, err := remote.Snapshot(to.Context(), q)
				for err == nil {
					var part *pb.SnapshotResponse
					if part, err = from.Recv(); err == nil {
						err = to.Send(part)
					}
				}
				if errors.Is(err, io.EOF) {
					return nil
				}
				return err
			},
		}))
	}
	return r
}

// begin notes a question. It is answered after a while, in which others would begin.
func (r *recorder) begin(id backup.MemberID) (end func()) {
	r.mu.Lock()
	if r.busy > 0 {
		r.beside++
	}
	r.busy, r.asked = r.busy+1, append(r.asked, id)
	r.mu.Unlock()
	<-time.After(50 * time.Millisecond)
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.busy--
	}
}

// during returns who was asked meanwhile.
func (r *recorder) during(do func()) []backup.MemberID {
	r.mu.Lock()
	before := len(r.asked)
	r.mu.Unlock()
	do()
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.asked[before:])
}

func (r *recorder) leader(t *testing.T) backup.MemberID {
	t.Helper()
	st, err := r.real.Client(t).Status(t.Context(), r.real.Members[0].ClientURL)
	if err != nil {
		t.Fatal(err)
	}
	return backup.MemberID(st.Leader)
}

// write changes the data, and waits until every member has it.
func (r *recorder) write(t *testing.T, key, value string) {
	t.Helper()
	put, err := r.real.Client(t).Put(t.Context(), key, value)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range r.real.Members {
		testserver.Eventually(t, "all are at one revision", func() bool {
			st, err := r.real.Client(t).Status(t.Context(), m.ClientURL)
			return err == nil && st.Header.Revision >= put.Header.Revision
		})
	}
}

// TestTaker_Take_Turns: of three real members one is asked at a time, never the leader,
// and each has its turn to be compared with another one.
func TestTaker_Take_Turns(t *testing.T) {
	r := record(t, testserver.StartCluster(t, testserver.Options{Size: 3}))
	r.write(t, "key", "some-value")
	leader := r.leader(t)
	taker := newTaker(t, connect(t, r.urls...), mem.New())
	last := map[backup.MemberID]int{}
	for n := range 7 { // the taker knows no more than the store tells
		r.write(t, "key", "another-value") // without a change the order of snapshots is that of their names
		var m *backup.Manifest
		asked := r.during(func() { m = take(t, taker) })
		if len(asked) != 1 || asked[0] == leader || !m.Verified() || asked[0] == m.Source.ID {
			t.Errorf("snapshot %d of %s: asked %v, %s leads, hashes %+v", n, m.Source.ID, asked, leader, m.MemberHashes)
		}
		last[m.Source.ID], last[asked[0]] = n+1, n+1
		for _, member := range m.Members {
			if n+1-last[member.ID] >= 3 {
				t.Errorf("snapshot %d: member %s was not compared for three", n, member.ID)
			}
		}
	}
	taker.Hashes = compare.All
	asked := r.during(func() { take(t, taker) })
	if len(asked) != 3 || asked[2] != leader {
		t.Errorf("all: asked %v, %s leads", asked, leader)
	}
	if r.beside != 0 {
		t.Errorf("%d were asked beside others", r.beside)
	}
}

// TestTaker_Take_TurnsFind: a member with other data is found within as many snapshots as
// there are members, also if it leads. It stays found until it is mended.
func TestTaker_Take_TurnsFind(t *testing.T) {
	r := record(t, testserver.StartCluster(t, testserver.Options{Size: 3}))
	for n, leads := range []bool{false, true} {
		t.Run(fmt.Sprint(n, " leads ", leads), func(t *testing.T) {
			r.write(t, "precious", fmt.Sprint("right-value-", n))
			taker := newTaker(t, connect(t, r.urls...), mem.New())
			first := take(t, taker) // the turns have begun
			victim := r.real.Members[n]
			victim.Terminate()
			diverge(t, filepath.Join(victim.DataDir, "member", "snap", "db"), fmt.Sprint("right-value-", n),
				fmt.Sprint("wrong-value-", n))
			victim.Restart(t)
			r.real.WaitReady(t)
			id := r.lead(t, victim, leads)
			again := func() *backup.Manifest {
				t.Helper()
				r.write(t, "other", "value") // without a change the order of snapshots is that of their names
				return take(t, taker)
			}
			found := 0
			for n := range 4 {
				m := again()
				differs := strings.Contains(strings.Join(m.Suspect, "\n"), "holds other data")
				if !differs && (found > 0 || n == 2) {
					t.Errorf("snapshot %d of %s, where member %s is wrong: got %s, hashes %+v", n, m.Source.ID, id, m.State(),
						m.MemberHashes)
				}
				if differs {
					found++
				}
				if differs && len(m.MemberHashes) != 3 {
					t.Errorf("snapshot %d: not all were asked who is right: %+v", n, m.MemberHashes)
				}
			}
			if found < 2 || !first.Verified() {
				t.Errorf("found in %d snapshots", found)
			}
			victim.Terminate()
			diverge(t, filepath.Join(victim.DataDir, "member", "snap", "db"), fmt.Sprint("wrong-value-", n),
				fmt.Sprint("right-value-", n))
			victim.Restart(t)
			r.real.WaitReady(t)
			if m := again(); !m.Verified() || len(m.MemberHashes) != 3 {
				t.Errorf("mended: got %s, %q, hashes %+v", m.State(), m.Suspect, m.MemberHashes)
			}
			if m := again(); !m.Verified() || len(m.MemberHashes) != 1 {
				t.Errorf("and then: got %s, %q, hashes %+v", m.State(), m.Suspect, m.MemberHashes)
			}
		})
	}
	if r.beside != 0 {
		t.Errorf("%d were asked beside others", r.beside)
	}
}

// lead makes the member lead, or another one, and returns its id.
func (r *recorder) lead(t *testing.T, m *testserver.Member, leads bool) backup.MemberID {
	t.Helper()
	id := func(m *testserver.Member) uint64 {
		st, err := r.real.Client(t).Status(t.Context(), m.ClientURL)
		if err != nil {
			t.Fatal(err)
		}
		return st.Header.MemberId
	}
	own := id(m)
	to := own
	if !leads {
		for _, other := range r.real.Members {
			if other != m {
				to = id(other)
			}
		}
	}
	testserver.Eventually(t, "the right one leads", func() bool {
		now := r.leader(t)
		for _, member := range r.real.Members {
			if id(member) == uint64(now) && uint64(now) != to {
				client, err := clientv3.New(clientv3.Config{Endpoints: []string{member.ClientURL}})
				if err != nil {
					t.Fatal(err)
				}
				_, _ = client.MoveLeader(t.Context(), to) // which is asked for until it has happened
				_ = client.Close()
			}
		}
		return uint64(r.leader(t)) == to
	})
	return backup.MemberID(own)
}
