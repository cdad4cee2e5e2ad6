package prune_test

import (
	"context"
	"slices"
	"testing"

	"github.com/etcd-backupd/backupd/internal/repository/prune"
	"github.com/etcd-backupd/backupd/internal/storage"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest/mem"
)

// TestLost: a snapshot that is gone without a mark of a removal is lost. What a
// listing left out, and what is removed at this moment, is not.
func TestLost(t *testing.T) {
	s := mem.New()
	all := daily(t, s, 4)
	before := look(t, prod(s), 1, later())
	if lost := prune.Lost(nil, before); len(lost) != 0 {
		t.Errorf("by the first look: %v", idsOf(lost))
	}
	if err := prune.Delete(t.Context(), prod(s), all[0].ID, "op"); err != nil {
		t.Fatal(err)
	}
	if err := s.Delete(t.Context(), all[1].Key()); err != nil {
		t.Fatal(err)
	}
	added := addSnapshot(t, s, manifest("prod", started, 9))
	now := look(t, prod(s), 1, later())
	lost := prune.Lost(before, now)
	if !slices.Equal(idsOf(lost), ids(all[1])) {
		t.Errorf("lost %v, want %v", idsOf(lost), all[1].ID)
	}
	if lost := prune.Lost(now, before); !slices.Equal(idsOf(lost), ids(added)) {
		t.Errorf("the other way: %v", idsOf(lost))
	}
	// Two more that only a listing misses: one is there, one is removed by now.
	if err := prune.Delete(t.Context(), prod(s), all[2].ID, "op"); err != nil {
		t.Fatal(err)
	}
	lost, err := prune.ConfirmLost(t.Context(), prod(s), before.Items)
	if err != nil || !slices.Equal(idsOf(lost), ids(all[1])) {
		t.Errorf("confirmed %v, %v", idsOf(lost), err)
	}
	faulty := &storagetest.Hook{Store: s, Before: func(_ context.Context, op storage.Op, _ string) error {
		if op == storage.OpStat {
			return errFault
		}
		return nil
	}}
	if lost, err := prune.ConfirmLost(t.Context(), prod(faulty), before.Items); err == nil || len(lost) != 0 {
		t.Errorf("a store that does not answer: %v, %v", idsOf(lost), err)
	}
}
