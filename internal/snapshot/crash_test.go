package snapshot_test

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/repository/prune"
	"github.com/etcd-backupd/backupd/internal/storage"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest/mem"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

var moments = map[string]storagetest.When{
	"Before": storagetest.Before, "After": storagetest.After, "Crash": storagetest.Crash,
}

// TestCrash_Take fails each operation of the store in turn while a snapshot is
// taken beside an older one, and then in an empty repository.
func TestCrash_Take(t *testing.T) {
	db := realDatabase(t)
	source := connect(t, startFakes(t, db, testserver.GoodSnapshot(db.raw)).urls...)
	for moment, when := range moments {
		for _, older := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s/Older=%v", moment, older), func(t *testing.T) {
				s := mem.New()
				var kept []*backup.Manifest
				if older {
					kept = append(kept, take(t, newTaker(t, source, s)))
				}
				for n := 0; ; n++ {
					faulty := storagetest.FailAt(s, n, when, errFault)
					trace := storagetest.Trace(faulty)
					taker := newTaker(t, source, trace)
					m, err := taker.Take(t.Context())
					wantEmpty(t, taker.Spool.Dir)
					checkAfterTake(t, s, kept, m, err)
					if t.Failed() {
						t.Fatalf("with operation %d failing: %v\n%s", n, err, trace)
					}
					if when != storagetest.Crash && err != nil &&
						!strings.Contains(trace.String(), "create prod/snapshots/") {
						wantNoOrphans(t, s)
					}
					if !faulty.Fired() {
						if err != nil || n < 6 {
							t.Fatalf("no fault at operation %d, and %v", n, err)
						}
						return
					}
					again := take(t, newTaker(t, source, s))
					if err := verify(t, s, again); err != nil {
						t.Fatalf("retry after a fault at operation %d: %v", n, err)
					}
					reset(t, s, kept)
				}
			})
		}
	}
}

// checkAfterTake: older snapshots are whole, and the new one is whole or absent.
func checkAfterTake(t *testing.T, s storage.Store, kept []*backup.Manifest, m *backup.Manifest, err error) {
	t.Helper()
	for _, old := range kept {
		if verr := verify(t, s, old); verr != nil {
			t.Errorf("older snapshot: %v", verr)
		}
	}
	if (m == nil) == (err == nil) || err != nil && !errors.Is(err, errFault) {
		t.Errorf("got manifest %v and error %v", m, err)
	}
	all := entries(t, s)
	if err == nil && (len(all) != len(kept)+1 || !slices.Contains(all, m.ObjectKey())) {
		t.Errorf("reported %v, listed %v", m.ID, all)
	}
	for _, e := range all {
		if _, verr := newVerifier(s, e.Cluster, t.TempDir()).Verify(t.Context(), itemOf(e)); verr != nil {
			t.Errorf("listed snapshot: %v", verr)
		}
	}
}

func wantNoOrphans(t *testing.T, s storage.Store) {
	t.Helper()
	if left := orphans(t, s); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// reset deletes everything but the kept snapshots.
func reset(t *testing.T, s storage.Store, kept []*backup.Manifest) {
	t.Helper()
	keep := map[string]bool{backup.MarkerKey: len(kept) > 0}
	for _, m := range kept {
		keep[m.Key()] = true
		for _, key := range m.DataKeys() {
			keep[key] = true
		}
	}
	for o := range s.List(t.Context(), "", "") {
		if !keep[o.Key] {
			if err := s.Delete(t.Context(), o.Key); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// TestCrash_Delete fails each operation of the store in turn while one of two
// snapshots is deleted.
func TestCrash_Delete(t *testing.T) {
	db := realDatabase(t)
	source := connect(t, startFakes(t, db, testserver.GoodSnapshot(db.raw)).urls...)
	for moment, when := range moments {
		t.Run(moment, func(t *testing.T) {
			s := mem.New()
			kept, doomed := take(t, newTaker(t, source, s)), take(t, newTaker(t, source, s))
			manifest, data := readObject(t, s, doomed.Key()), readObject(t, s, doomed.DataKey())
			for n := 0; ; n++ {
				faulty := storagetest.FailAt(s, n, when, errFault)
				err := prune.Delete(t.Context(), in(faulty).Cluster("prod"), doomed.ID, "op")
				// A mark whose creation was answered by an error may be there all the same.
				done := err == nil && (!faulty.Fired() || moment == "After")
				if _, oerr := open(t.Context(), s, doomed); done && oerr == nil || !done && !errors.Is(err, errFault) {
					t.Fatalf("operation %d: got %v, it is read with %v", n, err, oerr)
				}
				if verr := verify(t, s, kept); verr != nil {
					t.Fatalf("operation %d: the other snapshot: %v", n, verr)
				}
				if _, oerr := open(t.Context(), s, doomed); oerr == nil {
					if verr := verify(t, s, doomed); verr != nil {
						t.Fatalf("operation %d: it is listed but not whole: %v", n, verr)
					}
				}
				if !faulty.Fired() {
					if n < 4 {
						t.Fatalf("only %d operations", n)
					}
					wantKeys(t, s, kept)
					return
				}
				if err := prune.Delete(t.Context(), in(s).Cluster("prod"), doomed.ID, "op"); err != nil &&
					!errors.Is(err, fs.ErrNotExist) {
					t.Fatalf("operation %d: again: %v", n, err)
				}
				wantKeys(t, s, kept)
				create(t, s, doomed.DataKey(), data)
				create(t, s, doomed.Key(), manifest)
			}
		})
	}
}

// TestTrace compares the order of operations with golden files: the manifest is
// created last and deleted first.
func TestTrace(t *testing.T) {
	db := realDatabase(t)
	source := connect(t, startFakes(t, db, testserver.GoodSnapshot(db.raw)).urls...)
	s := mem.New()
	traced := storagetest.Trace(s)
	m := take(t, newTaker(t, source, traced))
	golden(t, "take.trace", traced.String())

	traced = storagetest.Trace(s)
	if err := prune.Delete(t.Context(), in(traced).Cluster("prod"), m.ID, "op"); err != nil {
		t.Fatal(err)
	}
	golden(t, "delete.trace", traced.String())

	if err := prune.Delete(t.Context(), in(s).Cluster(m.Cluster), m.ID, "op"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("deleting it again: got %v", err)
	}
	wantKeys(t, s)
}
