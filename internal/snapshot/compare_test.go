package snapshot_test

import (
	"strings"
	"sync/atomic"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/snapshot/compare"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest/mem"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// at calls f once, when the taker begins the stage, on a goroutine of the taker.
func at(taker *taker, stage backup.Stage, f func()) {
	var done atomic.Bool
	taker.Progress = func(s backup.Stage, _, _ int64) {
		if s == stage && done.CompareAndSwap(false, true) {
			f()
		}
	}
}

// TestTaker_Take_Compaction: members compact whenever they like. That must never
// make good data suspect.
func TestTaker_Take_Compaction(t *testing.T) {
	for _, version := range testserver.Versions(t) {
		t.Run(version, func(t *testing.T) { testCompaction(t, version) })
	}
}

func testCompaction(t *testing.T, version string) {
	real := testserver.StartCluster(t, testserver.Options{Version: version})
	client := real.Client(t)
	source := connect(t, real.Endpoints()...)
	seed := uint64(0)
	compact := func(rev int64) {
		if _, err := client.Compact(t.Context(), rev, clientv3.WithCompactPhysical()); err != nil {
			t.Error(err)
		}
	}
	fill := func(prefix string) int64 {
		seed++
		return testserver.Fill(t, client, testserver.FillOptions{Keys: 30, Prefix: prefix, Seed: seed}).Revision
	}
	// Each case begins with some more history, which ends at revision rev.
	for _, c := range []struct {
		name   string
		before func(rev int64)
		during func(rev int64) // between the stream and the question for HashKV
		want   string
	}{
		{"None", nil, nil, backup.HashEqual},
		{"BelowRevision", nil, func(rev int64) { compact(rev - 20) }, backup.HashEqual},
		{"JustBelowRevision", nil, func(rev int64) { compact(rev - 1) }, backup.HashEqual},
		{"AtRevision", nil, compact, backup.HashEqual},
		{"AtRevisionBefore", compact, nil, backup.HashEqual}, // an idle cluster, compacted at its head
		{"AboveRevision", nil, func(rev int64) {
			fill("after/")
			compact(rev + 2)
		}, backup.HashNotComparable},
		{"WritesOnly", nil, func(int64) { fill("after/") }, backup.HashEqual},
	} {
		t.Run(c.name, func(t *testing.T) {
			rev := fill(c.name + "/")
			if c.before != nil {
				c.before(rev)
			}
			taker := newTaker(t, source, mem.New())
			if c.during != nil {
				at(taker, backup.StageInspect, func() { c.during(rev) })
			}
			m := take(t, taker)
			if m.Revision != backup.Revision(rev) || len(m.MemberHashes) != 1 {
				t.Fatalf("got revision %d, want %d, hashes %+v", m.Revision, rev, m.MemberHashes)
			}
			state := backup.Verified
			if c.want == backup.HashNotComparable {
				state = backup.Unconfirmed
			}
			if got := m.MemberHashes[0]; got.Result != c.want || m.State() != state || len(m.Suspect) > 0 {
				t.Errorf("got %+v, suspect %q, unconfirmed %q, want %v", got, m.Suspect, m.Unconfirmed, c.want)
			}
			if err := verify(t, taker.store, m); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestTaker_Take_SkipHashes(t *testing.T) {
	db := realDatabase(t)
	f := startFakes(t, db, testserver.GoodSnapshot(db.raw))
	taker := newTaker(t, connect(t, f.urls...), mem.New())
	taker.Hashes = compare.Off
	if m := take(t, taker); len(m.MemberHashes) != 0 || m.State() != backup.Unconfirmed ||
		!strings.Contains(marshal(t, m), `"memberHashes": []`) || !strings.Contains(m.Unconfirmed[0], "switched off") {
		t.Errorf("got %+v", m)
	}
}

// TestTaker_Take_Impostor: another member may answer at the advertised URL of a
// member.
func TestTaker_Take_Impostor(t *testing.T) {
	db := realDatabase(t)
	f := startFakes(t, db, testserver.GoodSnapshot(db.raw))
	f.add(&pb.Member{ID: 2, Name: "other", PeerURLs: []string{"http://127.0.0.1:1"}, ClientURLs: f.urls})
	m := take(t, newTaker(t, connect(t, f.urls...), mem.New()))
	if len(m.MemberHashes) != 2 || m.MemberHashes[0].Result != backup.HashEqual ||
		m.MemberHashes[1].Result != backup.HashUnavailable {
		t.Errorf("got %+v", m.MemberHashes)
	}
}

// TestTaker_Take_Learner: a learner alone lists no members; the database does. It
// may be behind and cannot ask a quorum, so a voting member with the same content
// confirms nothing.
func TestTaker_Take_Learner(t *testing.T) {
	real := testserver.StartCluster(t, testserver.Options{})
	testserver.Fill(t, real.Client(t), testserver.FillOptions{})
	learner := real.AddLearner(t)
	m := take(t, newTaker(t, connect(t, learner.ClientURL), mem.New()))
	if len(m.Members) != 2 || len(m.MemberHashes) != 1 || m.MemberHashes[0].Result != backup.HashEqual ||
		m.State() != backup.Unconfirmed || m.Current() || len(m.Unconfirmed) != 2 ||
		!strings.Contains(m.Unconfirmed[0], "no quorum") || !strings.Contains(m.Unconfirmed[1], "learner") {
		t.Errorf("got members %+v, hashes %+v, unconfirmed %q", m.Members, m.MemberHashes, m.Unconfirmed)
	}
}
