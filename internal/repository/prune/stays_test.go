package prune_test

import (
	"context"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/repository/prune"
	"github.com/etcd-backupd/backupd/internal/retention"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest/mem"
)

// holding answers each deletion of some objects with success, and deletes nothing.
type holding struct {
	*mem.Store
	part string // of their keys
}

func (h *holding) Delete(ctx context.Context, key string) error {
	if strings.Contains(key, h.part) {
		return nil
	}
	return h.Store.Delete(ctx, key)
}

// TestDelete_Stays: a store says that it has deleted something, and has not. Nobody is told
// that the snapshot is gone, and its data is not deleted under its manifest.
func TestDelete_Stays(t *testing.T) {
	const held = "it is still there"
	for _, part := range []string{"/snapshots/", "/data/"} {
		t.Run(strings.Trim(part, "/"), func(t *testing.T) {
			s := &holding{mem.New(), part}
			all := daily(t, s, 3)
			p := newPruner(s, retention.Policy{Last: 1, MinVerified: 1})
			r, err := p.run(t.Context(), plan(t, p))
			if err == nil || !strings.Contains(err.Error(), held) {
				t.Errorf("prune: got %v", err)
			}
			if manifest := part == "/snapshots/"; manifest && len(r.Removed) != 0 || r.Bytes != 0 {
				t.Errorf("got %+v", r)
			}
			err = prune.Delete(t.Context(), prod(s), all[1].ID, "me")
			if err == nil || !strings.Contains(err.Error(), held) {
				t.Errorf("rm: got %v", err)
			}
			for _, m := range all {
				if _, err := s.Stat(t.Context(), m.DataKey()); err != nil {
					t.Errorf("the data of %s: %v", m.ID, err)
				}
			}
		})
	}
}
