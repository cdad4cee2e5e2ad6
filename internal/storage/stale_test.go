package storage_test

import (
	"context"
	"testing"
	"time"

	"github.com/etcd-backupd/backupd/internal/storage"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest/mem"
)

type stale struct {
	storage.Store
	olderThan time.Duration
}

func (s *stale) AbortStaleUploads(_ context.Context, olderThan time.Duration) (int, error) {
	s.olderThan = olderThan
	return 3, nil
}

func TestAbortStaleUploads(t *testing.T) {
	s := &stale{Store: mem.New()}
	observed := storage.WithObserver(s, func(storage.Event) {})
	n, err := storage.AbortStaleUploads(t.Context(), observed, time.Hour)
	if n != 3 || err != nil || s.olderThan != time.Hour {
		t.Errorf("got %d, %v, asked for %v", n, err, s.olderThan)
	}
	observed = storage.WithObserver(mem.New(), func(storage.Event) {})
	if n, err := storage.AbortStaleUploads(t.Context(), observed, time.Hour); n != 0 || err != nil {
		t.Errorf("a store without such a thing: got %d, %v", n, err)
	}
}
