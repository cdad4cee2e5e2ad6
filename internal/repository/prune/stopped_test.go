package prune_test

import (
	"context"
	"errors"
	"slices"
	"testing"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/retention"
	"github.com/etcd-backupd/backupd/internal/storage"
	"github.com/etcd-backupd/backupd/internal/storage/file"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest"
)

// TestPrune_Stopped: the process is stopped when a manifest has just gone, and nobody
// can tell any longer whether the snapshot was pinned meanwhile. So the manifest comes
// back.
func TestPrune_Stopped(t *testing.T) {
	s := file.New(t.TempDir())
	all := daily(t, s, 2)
	before := keys(t, s)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	hooked := &storagetest.Hook{Store: s, After: on(storage.OpDelete, func(string) { stop() })}
	p := newPruner(hooked, retention.Policy{Last: 1, MinVerified: 1})
	r, err := p.run(ctx, plan(t, p))
	if !errors.Is(err, context.Canceled) || len(r.Removed) > 0 {
		t.Errorf("got %+v, %v", r, err)
	}
	if got := keys(t, s); !slices.Equal(got, before) {
		t.Errorf("the store holds %q, it held %q", got, before)
	}
	if _, err := prod(s).Manifest(t.Context(), item(all[0])); err != nil {
		t.Error(err)
	}
}

// TestPrune_TooLarge: a manifest that is larger than any could not be put back, so it
// is not removed.
func TestPrune_TooLarge(t *testing.T) {
	s := file.New(t.TempDir())
	doomed := daily(t, s, 2)[0]
	if err := s.Delete(t.Context(), doomed.Key()); err != nil {
		t.Fatal(err)
	}
	create(t, s, doomed.Key(), make([]byte, backup.MaxManifestBytes+1))
	p := newPruner(s, retention.Policy{Last: 1, MinVerified: 1})
	before, pl := keys(t, s), plan(t, p)
	if got := going(pl); !slices.Equal(got, ids(doomed)) {
		t.Fatalf("the plan removes %v", got)
	}
	if r, err := p.run(t.Context(), pl); err == nil || len(r.Removed) > 0 {
		t.Errorf("got %+v, %v", r, err)
	}
	if got := keys(t, s); !slices.Equal(got, before) {
		t.Errorf("the store holds %q, it held %q", got, before)
	}
}
