package main

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/retention"
	"github.com/etcd-backupd/backupd/internal/storage"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest/mem"
)

// TestPruner_Swapped: a repository that is replaced between the look and the removal is
// not pruned.
func TestPruner_Swapped(t *testing.T) {
	s := mem.New()
	hook := &storagetest.Hook{Store: s}
	repo, err := repository.Create(t.Context(), hook)
	if err != nil {
		t.Fatal(err)
	}
	hook.After = func(ctx context.Context, op storage.Op, _ string) error {
		if op != storage.OpList {
			return nil
		}
		m := backup.NewMarker(time.Now())
		raw, err := m.Marshal()
		return errors.Join(err, s.Delete(ctx, backup.MarkerKey), s.Create(ctx, backup.MarkerKey, bytes.NewReader(raw)))
	}
	p := pruner{name: "prod", in: repo.Cluster("prod"), policy: retention.Policy{Last: 1, MinVerified: 1}}
	var absent *repository.AbsentError
	done := p.prune(t.Context(), false, slog.New(slog.DiscardHandler))
	if !errors.As(done.err, &absent) || absent.Known != repo.ID() || done.result != nil {
		t.Errorf("got %+v", done)
	}
}
