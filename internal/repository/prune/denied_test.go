package prune_test

import (
	"context"
	"io/fs"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/retention"
	"github.com/etcd-backupd/backupd/internal/storage"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest/mem"
)

// TestRun_Denied: a manifest that cannot be read could not be put back, and so it is not
// deleted. The others are.
func TestRun_Denied(t *testing.T) {
	s := mem.New()
	all := daily(t, s, 5)
	denied := all[1]
	hooked := &storagetest.Hook{Store: s}
	hooked.Before = func(_ context.Context, op storage.Op, key string) error {
		if op == storage.OpOpen && strings.Contains(key, string(denied.ID)) {
			return fs.ErrPermission
		}
		return nil
	}
	p := newPruner(hooked, retention.Policy{Last: 1, MinVerified: 1})
	r, err := p.run(t.Context(), plan(t, p))
	if err != nil || len(r.Removed) != 3 || len(r.Skipped) != 1 || r.Skipped[0].ID != denied.ID {
		t.Errorf("got %+v, %v", r, err)
	}
	for _, key := range []string{denied.Key(), denied.DataKey()} {
		if _, err := s.Stat(t.Context(), key); err != nil {
			t.Errorf("%s: %v", key, err)
		}
	}
}
