package snapshot_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/etcddb"
	"github.com/etcd-backupd/backupd/internal/snapshot"
	"github.com/etcd-backupd/backupd/internal/snapshot/compare"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest/mem"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// hash is an answer of a member of fakes.
func hash(hash uint32, compact backup.Revision) *pb.HashKVResponse {
	return &pb.HashKVResponse{Hash: hash, CompactRevision: int64(compact)}
}

// TestTaker_Take_State: what the members answer decides the state.
func TestTaker_Take_State(t *testing.T) {
	db := realDatabase(t)
	rev, own := db.facts.Revision, db.facts.HashKV
	type hashes = func(uint64, *pb.HashKVRequest) (*pb.HashKVResponse, error)
	refuse := func(uint64, *pb.HashKVRequest) (*pb.HashKVResponse, error) {
		return nil, status.Error(codes.Unimplemented, "not today")
	}
	for name, c := range map[string]struct {
		status  func(id uint64, st *pb.StatusResponse)
		hashKV  hashes
		state   backup.State
		reasons []string // one of each member
	}{
		"Silent": {nil, refuse, backup.Unconfirmed, []string{
			"member 1 could not be compared: ", "member 2 could not be compared: "}},
		"NotComparable": {nil, func(uint64, *pb.HashKVRequest) (*pb.HashKVResponse, error) {
			return hash(7, -1), nil
		}, backup.Unconfirmed, []string{"member 1 could not be compared: the member answered for compact revision -1", ""}},
		"OneSilent": {nil, func(id uint64, r *pb.HashKVRequest) (*pb.HashKVResponse, error) {
			if id == 1 {
				return refuse(id, r)
			}
			return hash(own.Hash, own.CompactRevision), nil
		}, backup.Verified, nil},
		"Differs": {nil, func(id uint64, _ *pb.HashKVRequest) (*pb.HashKVResponse, error) {
			return hash(own.Hash+uint32(id)-1, own.CompactRevision), nil
		}, backup.Suspect, []string{"member 2 holds other data: "}},
		"Contradict": {nil, func(id uint64, _ *pb.HashKVRequest) (*pb.HashKVResponse, error) {
			return hash(uint32(id), -1), nil // about records that the file no longer has
		}, backup.Suspect, []string{fmt.Sprintf("members 1 and 2 hold different data at revision %d", rev)}},
		"EndsBefore": {func(_ uint64, st *pb.StatusResponse) { st.Header.Revision = int64(rev) + 1 }, nil, backup.Suspect,
			[]string{fmt.Sprintf("member 1 served revision %d before, its database ends at %d", rev+1, rev)}},
		"OneIndex": {func(id uint64, st *pb.StatusResponse) { st.Header.Revision -= int64(id - 1) }, nil, backup.Suspect,
			[]string{fmt.Sprintf("members 1 and 2 have diverged: at raft index 4 one is at revision %d, the other at %d",
				rev, rev-1)}},
		"Behind": {func(id uint64, st *pb.StatusResponse) {
			st.Header.Revision -= int64(id - 1)
			st.RaftAppliedIndex -= id - 1
		}, nil, backup.Verified, nil},
		"Alarm": {func(id uint64, st *pb.StatusResponse) { st.Errors = []string{"memberID:9 alarm:CORRUPT "} }, nil,
			backup.Suspect, []string{"a CORRUPT alarm is active for member 9"}},
	} {
		t.Run(name, func(t *testing.T) {
			f := startFakes(t, db, testserver.GoodSnapshot(db.raw), testserver.GoodSnapshot(db.raw))
			f.lie(c.status, c.hashKV)
			s := mem.New()
			m := take(t, newTaker(t, connect(t, f.urls...), s))
			reasons := m.Suspect
			if c.state == backup.Unconfirmed {
				reasons = m.Unconfirmed
			}
			if m.State() != c.state || len(reasons) != len(c.reasons) {
				t.Fatalf("got %s, suspect %q, unconfirmed %q, want %s: %q", m.State(), m.Suspect, m.Unconfirmed, c.state,
					c.reasons)
			}
			for i, want := range c.reasons {
				if !strings.Contains(reasons[i], want) {
					t.Errorf("got %q, want %q", reasons[i], want)
				}
			}
			if err := verify(t, s, m); errors.Is(err, backup.ErrCorrupt) != (c.state == backup.Suspect) {
				t.Errorf("verify: got %v", err)
			}
			if m.SourceIndex != 4 || m.SourceTerm != 2 || m.HighWaterIndex != db.facts.ConsistentIndex || m.HighWaterTerm != 2 {
				t.Errorf("got source %d/%d, newest %d/%d", m.SourceTerm, m.SourceIndex, m.HighWaterTerm, m.HighWaterIndex)
			}
		})
	}
}

// TestTaker_Take_AskedAgain: a member that could not be compared at first is asked
// once more.
func TestTaker_Take_AskedAgain(t *testing.T) {
	db := realDatabase(t)
	f := startFakes(t, db, testserver.GoodSnapshot(db.raw))
	asked := 0
	f.lie(nil, func(uint64, *pb.HashKVRequest) (*pb.HashKVResponse, error) {
		if asked++; asked == 1 { // one member is asked one question at a time
			return nil, status.Error(codes.Unimplemented, "not yet")
		}
		return hash(db.facts.HashKV.Hash, db.facts.HashKV.CompactRevision), nil
	})
	if m := take(t, newTaker(t, connect(t, f.urls...), mem.New())); !m.Verified() || asked != 2 {
		t.Errorf("got unconfirmed %q, asked %d times", m.Unconfirmed, asked)
	}
}

// TestTaker_Take_Slow: the survey does not wait for a member that is slower than
// another. The comparison does.
func TestTaker_Take_Slow(t *testing.T) {
	db := realDatabase(t)
	f := startFakes(t, db, testserver.GoodSnapshot(db.raw), testserver.GoodSnapshot(db.raw))
	var once sync.Once
	f.lie(func(id uint64, _ *pb.StatusResponse) {
		if id == 2 {
			once.Do(func() { time.Sleep(2 * time.Second) })
		}
	}, nil)
	taker := newTaker(t, connect(t, f.urls...), mem.New())
	taker.Hashes = compare.All
	m := take(t, taker)
	if len(m.MemberHashes) != 2 || m.MemberHashes[1].Result != backup.HashEqual {
		t.Errorf("got %+v", m.MemberHashes)
	}
}

// TestTaker_Take_AlarmInFile: a database may hold an alarm that no member reports.
func TestTaker_Take_AlarmInFile(t *testing.T) {
	real := testserver.StartCluster(t, testserver.Options{})
	_, err := pb.NewMaintenanceClient(real.Client(t).ActiveConnection()).Alarm(t.Context(),
		&pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, MemberID: 9, Alarm: pb.AlarmType_CORRUPT})
	if err != nil {
		t.Fatal(err)
	}
	db := databaseOf(t, real)
	m := take(t, newTaker(t, connect(t, startFakes(t, db, testserver.GoodSnapshot(db.raw)).urls...), mem.New()))
	if m.State() != backup.Suspect || m.Suspect[0] != "the database holds a CORRUPT alarm for member 9" {
		t.Errorf("got %s, %q", m.State(), m.Suspect)
	}
}

func databaseOf(t *testing.T, real *testserver.Cluster) database {
	t.Helper()
	path := filepath.Join(t.TempDir(), "db")
	saver := snapshot.Saver{Source: connect(t, real.Endpoints()...)}
	if _, err := saver.Save(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	facts, err := etcddb.Inspect(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return database{raw[:len(raw)-sha256.Size], facts}
}

// TestTaker_Take_HashFails: a database whose hash cannot be computed is damaged by
// then, and says nothing of the members.
func TestTaker_Take_HashFails(t *testing.T) {
	db := realDatabase(t)
	f := startFakes(t, db, testserver.GoodSnapshot(db.raw))
	f.lie(nil, func(uint64, *pb.HashKVRequest) (*pb.HashKVResponse, error) {
		return hash(7, db.facts.HashKV.CompactRevision+1), nil // the file must be hashed anew
	})
	s := mem.New()
	taker := newTaker(t, connect(t, f.urls...), s)
	at(taker, backup.StageCompare, func() {
		testserver.Eventually(t, "the data is stored", func() bool { return hasData(t, s) })
		damage(t, taker.Spool.Dir, func(f *os.File, _ int64) error { return f.Truncate(0) })
	})
	m := take(t, taker)
	if m.State() != backup.Suspect || len(m.Suspect) != 1 ||
		!strings.HasPrefix(m.Suspect[0], "the hash of the received database cannot be computed: ") {
		t.Errorf("got %s, %q", m.State(), m.Suspect)
	}
}
