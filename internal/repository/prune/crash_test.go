package prune_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/retention"
	"github.com/etcd-backupd/backupd/internal/storage"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest/mem"
)

// TestPrune_Crash fails each operation of the store in turn. In every case the
// snapshots that stay are whole, none loses its data while it has its manifest, none
// goes without a mark, a
// failed deletion is the last one, and the next prune finishes.
func TestPrune_Crash(t *testing.T) {
	build := func() (storage.Store, []*backup.Manifest) {
		s := mem.New()
		create(t, s, backup.MarkerKey, []byte("{}"))
		all := daily(t, s, 6)
		if err := pin(t.Context(), s, all[1], "release", ""); err != nil {
			t.Fatal(err)
		}
		create(t, s, "prod/marks/20200101T000000Z-r5-aaaaaa.pin.json", []byte("of nothing"))
		create(t, s, "prod/data/20200101T000000Z-bbbbbb.db", []byte("litter"))
		markLitter(t, s, "20200101T000000Z-bbbbbb", time.Now())
		return s, all
	}
	policy := retention.Policy{Last: 2, MinVerified: 2}
	s, all := build()
	do(t, newPruner(s, policy))
	final := len(keys(t, s))
	kept := []int{1, 4, 5}
	for moment, when := range moments {
		t.Run(moment, func(t *testing.T) {
			for n := 0; ; n++ {
				s, all = build()
				faulty := storagetest.FailAt(s, n, when, errFault)
				trace := storagetest.Trace(faulty)
				p := newPruner(trace, policy)
				pl, err := p.plan(t.Context())
				if err == nil {
					_, err = p.run(t.Context(), pl)
				} else if strings.Contains(trace.String(), "delete ") {
					t.Errorf("planning deletes")
				}
				// A lost answer does no harm if it was that nothing is there.
				silent := err == nil && faulty.Fired() && when != storagetest.After
				if silent || err != nil && (!faulty.Fired() || !errors.Is(err, errFault)) {
					t.Errorf("got %v", err)
				}
				checkPruned(t, s, all, kept)
				if when == storagetest.Before {
					checkStopped(t, trace.Lines())
				}
				if t.Failed() {
					t.Fatalf("with operation %d failing: %v\n%s", n, err, trace)
				}
				do(t, newPruner(s, policy))
				if left := keys(t, s); len(left) != final {
					t.Fatalf("after a fault at operation %d the next prune leaves %v", n, left)
				}
				if !faulty.Fired() {
					if n < 20 {
						t.Errorf("only %d operations", n)
					}
					return
				}
			}
		})
	}
}

// checkPruned: kept snapshots are whole, and of the others none has a manifest
// without data.
func checkPruned(t *testing.T, s storage.Store, all []*backup.Manifest, kept []int) {
	t.Helper()
	left := keys(t, s)
	for i, e := range all {
		has := slices.Contains(left, e.Key())
		data := slices.Contains(left, "prod/data/"+string(e.ID.DataName())+".db")
		removed := slices.Contains(left, "prod/marks/"+string(e.ID)+".removed.json")
		if slices.Contains(kept, i) && !has || has && !data || !has && !removed {
			t.Errorf("snapshot %d: manifest %v, data %v, mark of a removal %v", i, has, data, removed)
		}
	}
	if !slices.Contains(left, pinKey(all[1])) {
		t.Error("the pin is gone")
	}
}

// checkStopped: after the first failed deletion nothing is deleted.
func checkStopped(t *testing.T, lines []string) {
	t.Helper()
	failed := false
	for _, line := range lines {
		if strings.HasPrefix(line, "delete ") && failed {
			t.Errorf("deleted after a failure: %s", line)
		}
		failed = failed || strings.HasPrefix(line, "delete ") && strings.HasSuffix(line, " failed")
	}
}

// TestPrune_Trace compares the order of operations with a golden file.
func TestPrune_Trace(t *testing.T) {
	s := mem.New()
	daily(t, s, 3)
	create(t, s, "prod/marks/20200101T000000Z-r5-aaaaaa.pin.json", []byte("of nothing"))
	create(t, s, "prod/data/20200101T000000Z-bbbbbb.db", []byte("litter"))
	markLitter(t, s, "20200101T000000Z-bbbbbb", time.Now())
	create(t, s, "prod/data/20200101T000000Z-cccccc.db", []byte("litter that was just found"))
	traced := storagetest.Trace(s)
	do(t, newPruner(traced, retention.Policy{Last: 2, MinVerified: 1}))
	golden(t, "prune.trace", traced.String())
}

// TestPrune_Locked: objects that the store has locked are skipped, and reported.
func TestPrune_Locked(t *testing.T) {
	for name, folder := range map[string]string{"Manifest": "snapshots", "Data": "data"} {
		t.Run(name, func(t *testing.T) {
			s := mem.New()
			all := daily(t, s, 4)
			prefix := "prod/" + folder + "/" + string(all[1].ID)[:16]
			locked := &storagetest.Hook{Store: s, Before: func(_ context.Context, op storage.Op, key string) error {
				if op == storage.OpDelete && strings.HasPrefix(key, prefix) {
					return fmt.Errorf("delete %s: %w", key, storage.ErrLocked)
				}
				return nil
			}}
			r := do(t, newPruner(locked, retention.Policy{Last: 1, MinVerified: 1}))
			want := ids(all[0], all[2])
			if folder == "data" {
				want = ids(all[0], all[1], all[2])
			}
			if !slices.Equal(r.Removed, want) || len(r.Locked) != 1 || !strings.HasPrefix(r.Locked[0], prefix) ||
				r.Bytes != 20 {
				t.Errorf("got %+v", r)
			}
			if folder == "snapshots" {
				readObject(t, s, "prod/data/"+string(all[1].ID.DataName())+".db")
				return
			}
			// It is litter now, and still locked; when the lock ends it goes.
			if r := do(t, newPruner(locked, retention.Policy{Last: 1, MinVerified: 1})); len(r.Locked) != 1 ||
				len(r.Litter) != 0 {
				t.Errorf("again: got %+v", r)
			}
			prefix = "nothing"
			if r := do(t, newPruner(locked, retention.Policy{Last: 1, MinVerified: 1})); len(r.Locked) != 0 ||
				len(r.Litter) != 1 {
				t.Errorf("when the lock has ended: got %+v", r)
			}
		})
	}
}
