package compare_test

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/cluster"
	"github.com/etcd-backupd/backupd/internal/etcddb"
	"github.com/etcd-backupd/backupd/internal/snapshot/compare"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// own is the HashKV of the file, which the members have too.
var own = backup.HashKV{Hash: 42, Revision: 7, CompactRevision: 5}

// fakes are a cluster of three members, of which the last one leads.
type fakes struct {
	source *cluster.Cluster
	urls   []string

	mu     sync.Mutex // guards what follows
	asked  []uint64   // for HashKV, in this order
	beside int        // questions that began while another was answered
	busy   bool
	// answer and slow may be nil. size is of each database in use.
	answer func(id uint64) (hash uint32, err error)
	slow   func(id uint64) time.Duration // for a read
	size   int64
}

// clusters counts the clusters of fakes: those with one id wait for each other.
var clusters atomic.Uint64

func startFakes(t *testing.T, size int) *fakes {
	t.Helper()
	clusterID := clusters.Add(1)
	f := &fakes{size: 1 << 20}
	var members []*pb.Member
	for id := uint64(1); id <= uint64(size); id++ {
		header := &pb.ResponseHeader{ClusterId: clusterID, MemberId: id, Revision: int64(own.Revision)}
		f.urls = append(f.urls, testserver.StartFakeMember(t, testserver.FakeMember{
			Status: func(context.Context, *pb.StatusRequest) (*pb.StatusResponse, error) {
				return &pb.StatusResponse{Header: header, Version: "3.7.3", DbSize: 4 << 30, DbSizeInUse: f.size,
					Leader: uint64(size), RaftTerm: 2, RaftAppliedIndex: 4}, nil
			},
			MemberList: func(context.Context, *pb.MemberListRequest) (*pb.MemberListResponse, error) {
				return &pb.MemberListResponse{Header: header, Members: members}, nil
			},
			Range: func(ctx context.Context, _ *pb.RangeRequest) (*pb.RangeResponse, error) {
				if f.slow != nil {
					select {
					case <-ctx.Done():
					case <-time.After(f.slow(id)):
					}
				}
				return &pb.RangeResponse{Header: header}, nil
			},
			HashKV: func(ctx context.Context, _ *pb.HashKVRequest) (*pb.HashKVResponse, error) {
				hash, err := f.hash(ctx, id)
				return &pb.HashKVResponse{Header: header, Hash: hash, HashRevision: int64(own.Revision),
					CompactRevision: int64(own.CompactRevision)}, err
			},
		}))
	}
	for i, url := range f.urls {
		members = append(members, &pb.Member{ID: uint64(i) + 1, Name: "fake", ClientURLs: []string{url}})
	}
	f.source = testserver.Connect(t, cluster.Config{Endpoints: f.urls})
	return f
}

// hash takes a while, in which others would begin to be asked.
func (f *fakes) hash(ctx context.Context, id uint64) (uint32, error) {
	f.mu.Lock()
	if f.busy {
		f.beside++
	}
	f.busy, f.asked = true, append(f.asked, id)
	f.mu.Unlock()
	select {
	case <-ctx.Done():
	case <-time.After(100 * time.Millisecond):
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.busy = false
	if f.answer != nil {
		return f.answer(id)
	}
	return own.Hash, nil
}

// comparer returns one that waits for members as long as a busy machine needs, but only a
// second for one that is slow for ever.
func (f *fakes) comparer(t *testing.T, p compare.Policy) *compare.Comparer {
	c := &compare.Comparer{Source: f.source, Policy: p, Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Progress: func(backup.Stage, int64, int64) {}}
	c.SetPatience(time.Minute)
	if f.slow != nil {
		c.SetPatience(time.Second)
	}
	return c
}

func (f *fakes) survey(t *testing.T) *cluster.Survey {
	t.Helper()
	s, err := f.source.Survey(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// verdict compares a database of the member, and returns whom that asked.
func (f *fakes) verdict(t *testing.T, c *compare.Comparer, from backup.MemberID) (compare.Verdict, []uint64) {
	t.Helper()
	f.asked = nil
	n := c.Begin(t.Context(), f.survey(t), from, filepath.Join(t.TempDir(), "nothing")) // nobody is asked early
	v := n.Verdict(t.Context(), &etcddb.Facts{Revision: own.Revision, HashKV: own})
	return v, f.asked
}

// TestVerdict: whom a comparison asks, in which order, and what it says then. The third
// member leads.
func TestVerdict(t *testing.T) {
	refused := status.Error(codes.Unimplemented, "not today")
	differs := func(which ...uint64) func(uint64) (uint32, error) {
		return func(id uint64) (uint32, error) {
			if slices.Contains(which, id) {
				return 1, nil
			}
			return own.Hash, nil
		}
	}
	refuse := func(which ...uint64) func(uint64) (uint32, error) {
		return func(id uint64) (uint32, error) {
			if slices.Contains(which, id) {
				return 0, refused
			}
			return own.Hash, nil
		}
	}
	compacted := func(uint64) (uint32, error) { return 0, rpctypes.ErrGRPCCompacted }
	large := int64(compare.LeaderLimit + 1)
	slow := func(which uint64) func(uint64) time.Duration {
		return func(id uint64) time.Duration {
			if id == which {
				return 700 * time.Millisecond
			}
			return 0
		}
	}
	for name, c := range map[string]struct {
		policy compare.Policy
		from   backup.MemberID
		answer func(uint64) (uint32, error)
		slow   func(uint64) time.Duration
		size   int64
		asked  []uint64
		// why is a part of the reason; state says of which state.
		state backup.State
		why   string
	}{
		"Other":         {from: 1, asked: []uint64{2}},
		"OfTheLeader":   {from: 3, asked: []uint64{1}},
		"OtherRefuses":  {from: 1, answer: refuse(2), asked: []uint64{2, 1}},
		"LeaderIsLast":  {from: 1, answer: refuse(1, 2), asked: []uint64{2, 1, 3}},
		"LeaderOfTheDB": {from: 3, answer: refuse(1, 2), asked: []uint64{1, 2, 3}},
		"LargeLeader": {from: 1, answer: refuse(1, 2), size: large, asked: []uint64{2, 1, 2, 1}, state: backup.Unconfirmed,
			why: "member 3 could not be compared: it was not asked, because it leads the cluster"},
		"Compacted": {from: 1, answer: compacted, asked: []uint64{2, 2, 1, 1, 2, 2, 1, 1}, state: backup.Unconfirmed,
			why: "member 3 could not be compared: it was not asked, because it leads the cluster, and another"},
		"LargeFollower": {from: 1, size: large, asked: []uint64{2}},
		"All":           {policy: compare.All, from: 1, asked: []uint64{2, 1, 3}},
		"AllLarge":      {policy: compare.All, from: 3, size: large, asked: []uint64{1, 2, 3}},
		"Off":           {policy: compare.Off, from: 1, state: backup.Unconfirmed, why: "switched off"},
		// If one holds other data, all others say who is right.
		"Differs": {from: 1, answer: differs(2), size: large, asked: []uint64{2, 1, 3}, state: backup.Suspect,
			why: "member 2 holds other data"},
		"SourceDiffers": {from: 1, answer: differs(2, 3), asked: []uint64{2, 1, 3}, state: backup.Suspect,
			why: "member 3 holds other data"},
		"SlowOther": {from: 1, slow: slow(3), state: backup.Unconfirmed,
			why: "member 2 could not be compared: nobody is asked"},
		"SlowLeader": {from: 3, slow: slow(3), state: backup.Unconfirmed, why: "nobody is asked while a member is slow"},
		"AllSlow": {policy: compare.All, from: 1, slow: slow(1), state: backup.Unconfirmed,
			why: "member 3 could not be compared: nobody is asked while a member is slow"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := startFakes(t, 3)
			f.answer, f.slow = c.answer, c.slow
			f.size = max(f.size, c.size)
			v, asked := f.verdict(t, f.comparer(t, c.policy), c.from)
			if !slices.Equal(asked, c.asked) || f.beside != 0 {
				t.Errorf("asked %v, want %v; %d beside others", asked, c.asked, f.beside)
			}
			state := (&backup.Capture{Suspect: v.Suspect, Unconfirmed: v.Unconfirmed}).State()
			reasons := strings.Join(slices.Concat(v.Suspect, v.Unconfirmed), "\n")
			if c.state == "" && state != backup.Verified ||
				c.state != "" && state != c.state || !strings.Contains(reasons, c.why) {
				t.Errorf("got %s: %s\nwant %s: %s", state, reasons, c.state, c.why)
			}
		})
	}
}

// TestVerdict_Alone: the only member leads. It is asked up to a size.
func TestVerdict_Alone(t *testing.T) {
	f := startFakes(t, 1)
	if v, asked := f.verdict(t, f.comparer(t, compare.One), 1); len(asked) != 1 || len(v.Unconfirmed) > 0 {
		t.Errorf("asked %v, got %+v", asked, v)
	}
	f.size = compare.LeaderLimit
	if v, asked := f.verdict(t, f.comparer(t, compare.One), 1); len(asked) != 1 || len(v.Unconfirmed) > 0 {
		t.Errorf("at the limit: asked %v, got %+v", asked, v)
	}
	f.size++
	c, turns := f.comparer(t, compare.One), 0
	c.Progress = func(_ backup.Stage, done, _ int64) { turns += int(done) }
	v, asked := f.verdict(t, c, 1)
	if turns != 1 {
		t.Errorf("it had %d turns: there is nothing to wait for", turns)
	}
	if len(asked) != 0 || len(v.Unconfirmed) != 1 || !strings.Contains(v.Unconfirmed[0], "only hash-check: all asks it") {
		t.Errorf("above it: asked %v, got %+v", asked, v)
	}
	if v, asked := f.verdict(t, f.comparer(t, compare.All), 1); len(asked) != 1 || len(v.Unconfirmed) > 0 {
		t.Errorf("all: asked %v, got %+v", asked, v)
	}
}

// TestVerdict_Waits: nobody is asked while a member is slow. When it is quick again the
// comparison goes on.
func TestVerdict_Waits(t *testing.T) {
	f := startFakes(t, 3)
	var reads atomic.Int64
	var quick atomic.Bool
	f.slow = func(id uint64) time.Duration {
		if id != 1 || reads.Add(1) > 2 {
			quick.Store(quick.Load() || id == 1)
			return 0
		}
		return 600 * time.Millisecond
	}
	f.answer = func(uint64) (uint32, error) {
		if !quick.Load() {
			t.Error("a member was asked while another is slow")
		}
		return own.Hash, nil
	}
	c := f.comparer(t, compare.One)
	c.SetPatience(time.Minute) // it will be quick again
	if v, asked := f.verdict(t, c, 1); len(asked) != 1 || len(v.Unconfirmed) > 0 {
		t.Errorf("asked %v, got %+v", asked, v)
	}
}

// TestVerdict_Down: a member that is down may be so for days. Nobody waits for it.
func TestVerdict_Down(t *testing.T) {
	f := startFakes(t, 3)
	proxy := testserver.StartProxy(t, strings.TrimPrefix(f.urls[1], "http://"))
	f.source = testserver.Connect(t, cluster.Config{Endpoints: []string{f.urls[0], proxy.URL, f.urls[2]},
		RequestTimeout: 3 * time.Second})
	s := f.survey(t)
	proxy.Stall()
	s.Members[1].ClientURLs = nil
	c := f.comparer(t, compare.One)
	n := c.Begin(t.Context(), s, 1, filepath.Join(t.TempDir(), "nothing"))
	v := n.Verdict(t.Context(), &etcddb.Facts{Revision: own.Revision, HashKV: own})
	if len(v.Unconfirmed) > 0 || !slices.Equal(f.asked, []uint64{1}) {
		t.Errorf("asked %v, got %+v", f.asked, v)
	}
}

// TestConfirm: a slot that is skipped asks the followers in turn, and the leader only if
// no other can answer.
func TestConfirm(t *testing.T) {
	f := startFakes(t, 4)
	m := &backup.Manifest{ID: "any", Capture: backup.Capture{Revision: own.Revision, HashKV: own}}
	c := f.comparer(t, compare.One)
	for n := range 6 {
		id, err := c.Confirm(t.Context(), f.survey(t), m)
		if err != nil {
			t.Fatal(err)
		}
		c.Turns = c.Turns.Confirmed(id, time.Unix(int64(n), 0))
	}
	if !slices.Equal(f.asked, []uint64{1, 2, 3, 1, 2, 3}) {
		t.Errorf("asked %v", f.asked)
	}
	f.slow = func(id uint64) time.Duration { return time.Duration(id/4) * 700 * time.Millisecond }
	f.asked = nil
	c.SetPatience(time.Second)
	if _, err := c.Confirm(t.Context(), f.survey(t), m); !errors.As(err, new(*compare.SlowError)) || len(f.asked) > 0 {
		t.Errorf("a slow leader: got %v, asked %v", err, f.asked)
	}
	c.SetPatience(time.Minute)
	f.slow, f.answer = nil, func(id uint64) (uint32, error) {
		if id == 4 {
			return own.Hash, nil
		}
		return 0, status.Error(codes.Unimplemented, "not today")
	}
	if id, err := c.Confirm(t.Context(), f.survey(t), m); err != nil || id != 4 {
		t.Errorf("only the leader answers: got %d, %v", id, err)
	}
	f.size, f.asked = compare.LeaderLimit+1, nil
	_, err := c.Confirm(t.Context(), f.survey(t), m)
	if !errors.As(err, new(*compare.LargeLeaderError)) || slices.Contains(f.asked, 4) {
		t.Errorf("it is large: got %v, asked %v", err, f.asked)
	}
}

// TestGate: one cluster may have snapshots in several repositories. Their comparisons do
// not meet.
func TestGate(t *testing.T) {
	f := startFakes(t, 5)
	s := f.survey(t)
	m := &backup.Manifest{ID: "any", Capture: backup.Capture{Revision: own.Revision, HashKV: own}}
	var all sync.WaitGroup
	for n := range 4 {
		all.Go(func() {
			c := f.comparer(t, compare.One)
			c.Turns = c.Turns.Confirmed(backup.MemberID(n), time.Unix(1, 0)) // each asks another one
			if _, err := c.Confirm(t.Context(), s, m); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if len(f.asked) != 4 || f.beside > 0 {
		t.Errorf("asked %v, %d beside others", f.asked, f.beside)
	}
}
