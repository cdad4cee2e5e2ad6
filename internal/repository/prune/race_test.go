package prune_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/repository/prune"
	"github.com/etcd-backupd/backupd/internal/retention"
	"github.com/etcd-backupd/backupd/internal/storage"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest/mem"
)

// on makes a hook that does something at each operation of one kind.
func on(op storage.Op, do func(key string)) func(context.Context, storage.Op, string) error {
	return func(_ context.Context, o storage.Op, key string) error {
		if o == op {
			do(key)
		}
		return nil
	}
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

// TestDelete_PinnedMeanwhile: the same holds for a person who removes one snapshot.
func TestDelete_PinnedMeanwhile(t *testing.T) {
	for name, when := range map[string]string{
		"Long": "long", "BeforeManifestGoes": "before", "AfterManifestWent": "after",
	} {
		t.Run(name, func(t *testing.T) {
			s := mem.New()
			m := daily(t, s, 1)[0]
			manifest := readObject(t, s, m.Key())
			pinned := backup.Mark{Kind: backup.MarkPin, ID: m.ID, Reason: "just now"}
			do := func(key string) {
				if key != m.Key() {
					return
				}
				if err := prod(s).Marks().Note(t.Context(), pinned); err != nil {
					t.Error(err)
				}
			}
			hooked := &storagetest.Hook{Store: s}
			switch when {
			case "long":
				do(m.Key())
				hooked.Before = on(storage.OpDelete, func(key string) { t.Errorf("%s is deleted", key) })
			case "before": // after the first look
				hooked.After = on(storage.OpOpen, do)
			case "after":
				hooked.After = on(storage.OpDelete, do)
			}
			err := prune.DeleteUnpinned(t.Context(), prod(hooked), m.ID, "me")
			var refused *prune.PinnedError
			if !errors.As(err, &refused) || refused.Reason != "just now" {
				t.Errorf("got %v", err)
			}
			if got := readObject(t, s, m.Key()); !bytes.Equal(got, manifest) {
				t.Errorf("the manifest is another: %s", got)
			}
			readObject(t, s, m.DataKey())
			for _, key := range keys(t, s) {
				if strings.HasSuffix(key, ".removed.json") {
					t.Errorf("it is marked as removed: %s", key)
				}
			}
			if err := prune.Delete(t.Context(), prod(s), m.ID, "me"); err != nil {
				t.Error(err)
			}
			if _, err := s.Stat(t.Context(), m.DataKey()); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("forced: got %v", err)
			}
		})
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
