package repository_test

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/repository/prune"
	"github.com/etcd-backupd/backupd/internal/storage"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest/mem"
)

// TestDelete_Clash: data that two manifests refer to is deleted with the second of
// them.
func TestDelete_Clash(t *testing.T) {
	s := mem.New()
	m := manifest("prod", started, 5)
	e := addSnapshot(t, s, m)
	twin := *e
	twin.ID = backup.SnapshotID(strings.Replace(string(e.ID), "-r5-", "-r6-", 1))
	copied := &twin
	create(t, s, copied.Key(), marshal(t, m))
	for i, c := range []struct {
		e    *backup.Manifest
		left []string
	}{{copied, []string{m.DataKey(), e.Key()}}, {e, nil}} {
		if err := prune.Delete(t.Context(), prod(s), c.e.ID, "op"); err != nil || !slices.Equal(unmarked(t, s), c.left) {
			t.Errorf("%d: got %v, left %v", i, err, keys(t, s))
		}
	}
}

// on makes a hook that does something at each operation of one kind.
func on(op storage.Op, do func(key string)) func(context.Context, storage.Op, string) error {
	return func(_ context.Context, o storage.Op, key string) error {
		if o == op {
			do(key)
		}
		return nil
	}
}

// once makes a hook that does something at the first operation of one kind on a
// key with a prefix.
func once(op storage.Op, prefix string, do func()) func(context.Context, storage.Op, string) error {
	return on(op, func(key string) {
		if then := do; strings.HasPrefix(key, prefix) && then != nil {
			do = nil
			then()
		}
	})
}

// TestPin_PrunedMeanwhile is the other side: it is an error to pin a snapshot that
// is just being deleted.
func TestPin_PrunedMeanwhile(t *testing.T) {
	s := mem.New()
	e := daily(t, s, 1)[0]
	hooked := &storagetest.Hook{Store: s, After: on(storage.OpCreate, func(string) {
		if err := s.Delete(t.Context(), e.Key()); err != nil {
			t.Fatal(err)
		}
	})}
	var none *repository.NotFoundError
	if err := pin(t.Context(), hooked, e, "reason", ""); !errors.As(err, &none) {
		t.Errorf("got %v", err)
	}
}
