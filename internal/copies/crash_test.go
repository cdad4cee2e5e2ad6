package copies_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/storage"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest"
)

// watched is a way to the destination s. Each manifest is looked at when it is made.
func watched(t *testing.T, way, s storage.Store) storage.Store {
	return &storagetest.Hook{Store: way, After: func(_ context.Context, op storage.Op, key string) error {
		if op == storage.OpCreate && strings.Contains(key, "/snapshots/") {
			whole(t, s)
		}
		return nil
	}}
}

// TestCopy_Crash fails each operation of either side in turn. Whenever it is, there is no
// manifest without data, and the next run completes what was begun.
func TestCopy_Crash(t *testing.T) {
	moments := map[string]storagetest.When{
		"Before": storagetest.Before, "After": storagetest.After, "Crash": storagetest.Crash,
	}
	for _, side := range []string{"Source", "Destination"} {
		for moment, when := range moments {
			t.Run(side+moment, func(t *testing.T) {
				for n := 0; ; n++ {
					from, to := newPlace(t), newPlace(t)
					want := idsOf(add(t, from, 1), add(t, from, 2, withFiles))
					pin := mark(t, from, backup.MarkPin, want[0], "before the upgrade")
					held := add(t, from, 3)
					create(t, to, held.DataKey(), read(t, from, held.DataKey()))
					create(t, to, held.Key(), read(t, from, held.Key()))
					late := mark(t, from, backup.MarkPin, held.ID, "since the copy")
					want = append(want, held.ID)

					broken := map[string]place{"Source": from, "Destination": to}[side]
					faulty := storagetest.FailAt(broken.Store, n, when, errFault)
					c := copier(from.through(faulty), to.through(watched(t, to.Store, to.Store)))
					if side == "Destination" {
						c = copier(from, to.through(watched(t, faulty, to.Store)))
					}
					p, err := c.Plan(t.Context(), now())
					if err == nil {
						_, err = c.Run(t.Context(), p)
					}
					if err != nil && (!faulty.Fired() || !errors.Is(err, errFault)) {
						t.Fatalf("operation %d: %v", n, err)
					}
					// A lost answer does no harm if what was asked for is there.
					if got := whole(t, to); err == nil && !slices.Equal(got, want) {
						t.Fatalf("operation %d failed, nobody was told, and only %v is there", n, got)
					}
					leftOut(t, copyAll(t, copier(from, to)).LeftOut)
					if got := whole(t, to); !slices.Equal(got, want) || !has(t, to, pin) || !has(t, to, late) {
						t.Fatalf("operation %d: the next run leaves %v", n, got)
					}
					if !faulty.Fired() {
						if n < 10 {
							t.Errorf("only %d operations", n)
						}
						return
					}
				}
			})
		}
	}
}
