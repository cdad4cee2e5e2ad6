package repository_test

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/retention"
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
		if err := prod(s).Delete(t.Context(), c.e.ID); err != nil || !slices.Equal(keys(t, s), c.left) {
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

// TestPrune_PinnedMeanwhile: whenever a pin is reported to be made, the snapshot
// is there and stays.
func TestPrune_PinnedMeanwhile(t *testing.T) {
	for name, when := range map[string]string{"BeforeRun": "run", "BeforeManifestGoes": "before",
		"AfterManifestWent": "after"} {
		t.Run(name, func(t *testing.T) {
			s := mem.New()
			all := daily(t, s, 3)
			doomed := all[0]
			manifest := readObject(t, s, doomed.Key())
			pinned := false
			pin := func(key string) {
				if key == doomed.Key() && !pinned {
					pinned = pin(t.Context(), s, doomed, "just now", "") == nil
				}
			}
			hooked := &storagetest.Hook{Store: s}
			p := newPruner(hooked, retention.Policy{Last: 1, MinVerified: 1})
			pl := plan(t, p)
			switch when {
			case "run":
				pin(doomed.Key())
				hooked.Before = on(storage.OpDelete, func(key string) {
					if key == doomed.Key() {
						t.Error("it was pinned long ago, and is deleted for a moment")
					}
				})
			case "before":
				hooked.Before = on(storage.OpDelete, pin)
			case "after":
				hooked.After = on(storage.OpDelete, pin)
			}
			r, err := p.run(t.Context(), pl)
			if err != nil {
				t.Fatal(err)
			}
			if pinned == (when == "after") {
				t.Fatalf("pinned: %v", pinned)
			}
			if !pinned {
				if !slices.Equal(r.Removed, ids(all[0], all[1])) {
					t.Errorf("got %+v", r)
				}
				return
			}
			if !slices.Equal(r.Removed, ids(all[1])) || len(r.Skipped) != 1 || r.Skipped[0].ID != doomed.ID ||
				!strings.Contains(r.Skipped[0].Reason, "pinned") {
				t.Errorf("got %+v", r)
			}
			if got := readObject(t, s, doomed.Key()); !bytes.Equal(got, manifest) {
				t.Errorf("the manifest is another: %s", got)
			}
			readObject(t, s, "prod/data/"+string(doomed.ID.DataName())+".db")
		})
	}
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

// TestPrune_RemovedMeanwhile: somebody else removes a snapshot of the plan, and
// its data.
func TestPrune_RemovedMeanwhile(t *testing.T) {
	s := mem.New()
	all := daily(t, s, 3)
	p := newPruner(s, retention.Policy{Last: 1, MinVerified: 1})
	pl := plan(t, p)
	if err := s.Delete(t.Context(), all[0].Key()); err != nil {
		t.Fatal(err)
	}
	r, err := p.run(t.Context(), pl)
	if err != nil || !slices.Equal(r.Removed, ids(all[1])) || len(r.Skipped) != 1 || r.Skipped[0].ID != all[0].ID {
		t.Errorf("got %+v, %v", r, err)
	}
	readObject(t, s, "prod/data/"+string(all[0].ID.DataName())+".db")
}
