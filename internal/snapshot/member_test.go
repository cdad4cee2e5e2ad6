package snapshot_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/bbolt"
	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/cluster"
	"github.com/etcd-backupd/backupd/internal/codec"
	"github.com/etcd-backupd/backupd/internal/snapshot"
	"github.com/etcd-backupd/backupd/internal/snapshot/compare"
	"github.com/etcd-backupd/backupd/internal/storage"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest/mem"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// impatient is the cluster of fakes, whose streams must not stall for long.
func impatient(t *testing.T, f *fakes) *cluster.Cluster {
	t.Helper()
	return testserver.Connect(t, cluster.Config{Endpoints: f.urls, StallTimeout: 300 * time.Millisecond})
}

// TestTaker_Take_MemberFails: whatever the first member does to the stream, the
// second is used. If there is no second, the taking fails in time and leaves
// nothing behind.
func TestTaker_Take_MemberFails(t *testing.T) {
	db := realDatabase(t)
	raw := db.raw
	damaged := bytes.Clone(raw) // on the member's own disk, so with a good trailer
	clear(damaged[:4096*2])
	for name, c := range map[string]struct {
		fault testserver.SnapshotFunc
		want  string
	}{
		"WrongTrailer": {testserver.WrongTrailer(raw), "expected sha256"},
		"NoTrailer":    {testserver.NoTrailer(raw), "without etcd's SHA-256 trailer"},
		"Truncated":    {testserver.Truncated(raw, len(raw)/2), "truncated"},
		"NoDatabase":   {testserver.GoodSnapshot(testserver.FakeDB()), "inspect the database"},
		"Damaged":      {testserver.GoodSnapshot(damaged), "inspect the database"},
		"Stalls":       {testserver.StallAfter(raw, len(raw)/2), "no progress"},
		"StallsAtOnce": {testserver.StallAfter(raw, 0), "no progress"},
		"Empty":        {testserver.EmptyAfter(raw, len(raw)/2), "no progress"},
		"Fails": {
			testserver.FailAfter(raw, 20_000, status.Error(codes.Unavailable, "going down")), "going down",
		},
	} {
		t.Run(name, func(t *testing.T) {
			before := goleak.IgnoreCurrent()
			t.Run("Another", func(t *testing.T) {
				f := startFakes(t, db, c.fault, testserver.GoodSnapshot(raw))
				s := storagetest.Trace(mem.New())
				taker := newTaker(t, impatient(t, f), s)
				m := take(t, taker)
				if m.Endpoint != f.urls[1] || m.Source.ID != 2 || !m.Verified() || f.streams.Load() != 2 {
					t.Errorf("got snapshot of %s, suspect %q, in %d streams", m.Endpoint, m.Suspect, f.streams.Load())
				}
				if err := verify(t, s, m); err != nil {
					t.Error(err)
				}
				wantKeys(t, s, m)
			})
			t.Run("NoOther", func(t *testing.T) {
				f := startFakes(t, db, c.fault)
				s := mem.New()
				taker := newTaker(t, impatient(t, f), s)
				var none *cluster.NoMemberError
				if _, err := taker.Take(t.Context()); !errors.As(err, &none) || !strings.Contains(err.Error(), c.want) {
					t.Errorf("got %v, want a NoMemberError that tells %q", err, c.want)
				}
				wantKeys(t, s)
				wantEmpty(t, taker.Spool.Dir)
			})
			goleak.VerifyNone(t, before)
		})
	}
}

// TestTaker_Take_Cancelled: the end of the context ends the taking at any point,
// and nothing is left.
func TestTaker_Take_Cancelled(t *testing.T) {
	db := realDatabase(t)
	for name, c := range map[string]struct {
		stage backup.Stage
		send  testserver.SnapshotFunc
	}{
		"Receiving":  {backup.StageReceive, testserver.StallAfter(db.raw, len(db.raw)/2)},
		"Storing":    {backup.StageStore, testserver.StallAfter(db.raw, len(db.raw)/2)},
		"Inspecting": {backup.StageInspect, testserver.GoodSnapshot(db.raw)},
		"Comparing":  {backup.StageCompare, testserver.GoodSnapshot(db.raw)},
		"Verifying":  {backup.StageVerify, testserver.GoodSnapshot(db.raw)},
	} {
		t.Run(name, func(t *testing.T) {
			s := mem.New()
			taker := newTaker(t, connect(t, startFakes(t, db, c.send).urls...), s)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			taker.Progress = func(stage backup.Stage, _, _ int64) {
				if stage != c.stage {
					return
				}
				if stage == backup.StageCompare { // the upload has ended, and its result was not returned yet
					testserver.Eventually(t, "the data is stored", func() bool { return hasData(t, s) })
				}
				cancel()
			}
			if _, err := taker.Take(ctx); !errors.Is(err, context.Canceled) {
				t.Errorf("got %v", err)
			}
			wantKeys(t, s)
			wantEmpty(t, taker.Spool.Dir)
		})
	}
}

func hasData(t *testing.T, s storage.Store) bool {
	t.Helper()
	for _, err := range s.List(t.Context(), backup.DataPrefix("prod"), "") {
		return err == nil
	}
	return false
}

// TestTaker_Take_MemberDies: real members are killed and stopped in the middle of
// a stream that is much longer than the buffers of the network.
func TestTaker_Take_MemberDies(t *testing.T) {
	real := testserver.StartCluster(t, testserver.Options{Size: 3})
	value := strings.Repeat("0123456789abcdef", 64<<10)
	for i := range 40 { // 40 MiB
		if _, err := real.Client(t).Put(t.Context(), fmt.Sprint("big/", i), value); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct{ lose, back func(*testserver.Member) }{
		"Killed":  {(*testserver.Member).Kill, func(m *testserver.Member) { m.Restart(t) }},
		"Stopped": {(*testserver.Member).Pause, (*testserver.Member).Resume},
	} {
		t.Run(name, func(t *testing.T) {
			s := mem.New()
			taker := newTaker(t, testserver.Connect(t, cluster.Config{
				Endpoints: real.Endpoints(), StallTimeout: time.Second, RequestTimeout: 5 * time.Second,
			}), s)
			taker.Hashes = compare.All
			var first string
			var lost *testserver.Member
			saver := snapshot.Saver{Source: taker.Source,
				Chosen: func(s *cluster.Survey) { first = s.Candidates[0].Endpoint }}
			if _, err := saver.Stream(t.Context(), &bytes.Buffer{}); err != nil {
				t.Fatal(err)
			}
			taker.Progress = func(stage backup.Stage, done, total int64) {
				if stage != backup.StageReceive || lost != nil || done < 1<<20 {
					return
				}
				for _, m := range real.Members {
					if m.ClientURL == first {
						lost = m
						c.lose(m)
					}
				}
			}
			m := take(t, taker)
			if lost == nil || m.Endpoint == first {
				t.Fatalf("got a snapshot of %s, which was lost: %v", m.Endpoint, lost != nil)
			}
			results := map[string]int{}
			for _, h := range m.MemberHashes {
				results[h.Result]++
			}
			if results[backup.HashEqual] != 2 || results[backup.HashUnavailable] != 1 || !m.Verified() {
				t.Errorf("got hashes %+v, suspect %q", m.MemberHashes, m.Suspect)
			}
			wantKeys(t, s, m)
			c.back(lost)
			real.WaitReady(t)
		})
	}
	t.Run("TwoDead", func(t *testing.T) {
		real.Members[0].Kill()
		real.Members[1].Kill()
		s := mem.New()
		m := take(t, newTaker(t, connect(t, real.Endpoints()...), s))
		if m.Endpoint != real.Members[2].ClientURL || len(m.Members) != 3 || len(m.MemberHashes) != 3 ||
			m.State() != backup.Unconfirmed || m.Current() {
			t.Errorf("got snapshot of %s, hashes %+v, %s", m.Endpoint, m.MemberHashes, m.State())
		}
		if err := verify(t, s, m); err != nil {
			t.Error(err)
		}
	})
}

// TestTaker_Take_Diverged: a member whose data was changed behind the cluster's
// back makes every snapshot suspect, whichever member it is of.
func TestTaker_Take_Diverged(t *testing.T) {
	real := testserver.StartCluster(t, testserver.Options{Size: 3})
	testserver.Fill(t, real.Client(t), testserver.FillOptions{Keys: 40})
	put, err := real.Client(t).Put(t.Context(), "precious", "right-value")
	if err != nil {
		t.Fatal(err)
	}
	victim := real.Members[0]
	for _, m := range real.Members { // a follower may be behind
		testserver.Eventually(t, "all are at one revision", func() bool {
			st, err := real.Client(t).Status(t.Context(), m.ClientURL)
			return err == nil && st.Header.Revision == put.Header.Revision
		})
	}
	victim.Terminate()
	diverge(t, filepath.Join(victim.DataDir, "member", "snap", "db"), "right-value", "wrong-value")
	victim.Restart(t)
	real.WaitReady(t)

	for name, endpoints := range map[string][]string{"OfAll": real.Endpoints(), "OfVictim": {victim.ClientURL},
		"OfOther": {real.Members[1].ClientURL}} {
		t.Run(name, func(t *testing.T) {
			s := mem.New()
			taker := newTaker(t, connect(t, endpoints...), s)
			taker.Hashes = compare.All
			m := take(t, taker)
			differ := 0
			for _, h := range m.MemberHashes {
				if h.Result == backup.HashDiffers {
					differ++
				}
			}
			want := 1
			if m.Endpoint == victim.ClientURL {
				want = 2
			}
			if m.Verified() || len(m.MemberHashes) != 3 || differ != want ||
				!strings.Contains(m.Suspect[0], "holds other data") {
				t.Errorf("got hashes %+v, suspect %q", m.MemberHashes, m.Suspect)
			}
			var defect *backup.DefectError
			if err := verify(t, s, m); !errors.As(err, &defect) || defect.Kind != backup.Doubted ||
				!errors.Is(err, backup.ErrCorrupt) {
				t.Errorf("verify: got %v", err)
			}
		})
	}
}

// diverge replaces a value in the database of a stopped member.
func diverge(t *testing.T, path, from, to string) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		t.Fatal(err)
	}
	changed := 0
	err = db.Update(func(tx *bbolt.Tx) error {
		records := tx.Bucket([]byte("key"))
		c := records.Cursor()
		for k, v := c.First(); k != nil; k, v = c.Next() {
			if bytes.Contains(v, []byte(from)) {
				changed++
				return records.Put(bytes.Clone(k), bytes.ReplaceAll(v, []byte(from), []byte(to)))
			}
		}
		return nil
	})
	if err := errors.Join(err, db.Close()); err != nil || changed != 1 {
		t.Fatalf("changed %d records, %v", changed, err)
	}
}

// TestTaker_Take_StoreFails: a store in trouble is offered the spool again, and
// etcd is not asked for a second stream. A store that forbids the upload is not
// asked again.
func TestTaker_Take_StoreFails(t *testing.T) {
	db := realDatabase(t)
	const createData = 7 // after: open marker, list three times, create marker, open it, list manifests
	for name, c := range map[string]struct {
		when    storagetest.When
		err     error
		creates int
		ok      bool
	}{
		"Before":     {storagetest.Before, errFault, 2, true},
		"LostAnswer": {storagetest.After, errFault, 2, true},
		"Forbidden":  {storagetest.Before, fs.ErrPermission, 1, false},
		"Corrupt":    {storagetest.Before, backup.ErrCorrupt, 1, false},
		"Outage":     {storagetest.Crash, errFault, 3, false},
	} {
		t.Run(name, func(t *testing.T) {
			f := startFakes(t, db, testserver.GoodSnapshot(db.raw))
			inner := mem.New()
			s := storagetest.Trace(storagetest.FailAt(inner, createData, c.when, c.err))
			taker := newTaker(t, connect(t, f.urls...), s)
			m, err := taker.Take(t.Context())
			if (err == nil) != c.ok || err != nil && !errors.Is(err, c.err) {
				t.Fatalf("got %v", err)
			}
			if n := strings.Count(s.String(), "create prod/data/"); n != c.creates {
				t.Errorf("the store was offered the data %d times, want %d:\n%s", n, c.creates, s)
			}
			if n := f.streams.Load(); n != 1 {
				t.Errorf("etcd was asked for %d streams", n)
			}
			if c.ok {
				wantKeys(t, inner, m)
			} else {
				wantKeys(t, inner)
			}
			if err != nil {
				return
			}
			if err := verify(t, inner, m); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestTaker_Take_CancelledPause: a cancelled taking does not sit out the pauses.
func TestTaker_Take_CancelledPause(t *testing.T) {
	db := realDatabase(t)
	s := storagetest.FailAt(mem.New(), 7, storagetest.Before, errFault)
	taker := newTaker(t, connect(t, startFakes(t, db, testserver.GoodSnapshot(db.raw)).urls...), s)
	taker.SetRetryPause(time.Hour)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	if _, err := taker.Take(ctx); !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, errFault) {
		t.Errorf("got %v, want the end of the context and the store's error", err)
	}
}

func TestTaker_Take_SpoolFolder(t *testing.T) {
	db := realDatabase(t)
	taker := newTaker(t, connect(t, startFakes(t, db, testserver.GoodSnapshot(db.raw)).urls...), mem.New())
	taker.Spool.Dir = filepath.Join(taker.Spool.Dir, "missing")
	if _, err := taker.Take(t.Context()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

// TestTaker_Take_SpoolLies: the stored bytes are read from the spool, and its disk
// may return other bytes than were written.
func TestTaker_Take_SpoolLies(t *testing.T) {
	real := testserver.StartCluster(t, testserver.Options{})
	for i := range 3 { // more than is read ahead of the store
		if _, err := real.Client(t).Put(t.Context(), fmt.Sprint("big/", i), strings.Repeat("x", 1<<20)); err != nil {
			t.Fatal(err)
		}
	}
	for _, keep := range []bool{false, true} {
		gate := make(chan struct{})
		s := gated(mem.New(), gate)
		taker := newTaker(t, connect(t, real.Endpoints()...), s)
		taker.Codec, taker.Spool.Keep = codec.Options{}, keep
		at(taker, backup.StageInspect, func() {
			defer close(gate)
			// In the trailer, where the inspection of the database does not look.
			damage(t, taker.Spool.Dir, func(f *os.File, size int64) error {
				_, err := f.WriteAt([]byte("lies"), size-10)
				return err
			})
		})
		if _, err := taker.Take(t.Context()); !errors.Is(err, backup.ErrCorrupt) ||
			!strings.Contains(err.Error(), "spooled copy") {
			t.Errorf("got %v", err)
		}
		wantKeys(t, s)
		wantEmpty(t, taker.Spool.Dir)
	}
}

// gated returns s, which accepts no data before the gate is open.
func gated(s storage.Store, gate <-chan struct{}) storage.Store {
	return &storagetest.Hook{Store: s, Before: func(_ context.Context, op storage.Op, key string) error {
		if op == storage.OpCreate && isData(key) {
			<-gate
		}
		return nil
	}}
}

func isData(key string) bool {
	k, err := backup.ParseKey(key)
	return err == nil && k.Kind == backup.KindData
}
