package repository_test

import (
	"context"
	"errors"
	"iter"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/repository/choice"
	"github.com/etcd-backupd/backupd/internal/storage"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest/mem"
)

// disordered lists no more than one object: of more it finds that they are not in order.
type disordered struct{ storage.Store }

func (d *disordered) List(ctx context.Context, prefix, after string) iter.Seq2[storage.Object, error] {
	return func(yield func(storage.Object, error) bool) {
		n := 0
		for o, err := range d.Store.List(ctx, prefix, after) {
			if n++; n == 2 {
				yield(storage.Object{}, backup.ErrUnordered)
				return
			}
			if !yield(o, err) {
				return
			}
		}
	}
}

func (d *disordered) CheckOrder(context.Context, string) error { return backup.ErrUnordered }

// TestUnordered_OneSecond: each of several snapshots that were begun in the same second can be
// had by its full id. Without the name of the cluster the error says what is missing.
func TestUnordered_OneSecond(t *testing.T) {
	s := &disordered{mem.New()}
	all := []*backup.Manifest{}
	for n := range 3 {
		all = append(all, addSnapshot(t, s.Store, manifest("prod", started, backup.Revision(n+1))))
	}
	addSnapshot(t, s.Store, manifest("prod-eu", started, 9))
	for _, m := range all {
		i, err := choice.FindIn(t.Context(), prod(s), string(m.ID))
		if err != nil || i.ID != m.ID || !i.Exists || len(i.Data) != 1 {
			t.Errorf("got %+v, %v", i, err)
		}
	}
	var hint *backup.HintError
	_, _, err := choice.Find(t.Context(), in(s), "", string(all[0].ID))
	if !errors.Is(err, backup.ErrUnordered) || !errors.As(err, &hint) || !strings.Contains(hint.Hint, "--cluster") {
		t.Errorf("got %v, hint %+v", err, hint)
	}
}

// TestUnordered: a store that does not list in the order of keys holds no repository. Where
// there is one all the same, each snapshot can be had by its full id.
func TestUnordered(t *testing.T) {
	s := &disordered{mem.New()}
	if _, err := repository.Create(t.Context(), s); !errors.Is(err, backup.ErrUnordered) {
		t.Errorf("got %v", err)
	}
	if got := keys(t, s); len(got) != 0 {
		t.Errorf("it holds %q", got)
	}
	if _, err := repository.Create(t.Context(), s.Store); err != nil {
		t.Fatal(err)
	}
	all := daily(t, s.Store, 3)
	c := prod(s)
	for range c.Items(t.Context()) {
		break
	}
	if _, err := repository.Names(t.Context(), c, ""); !errors.Is(err, backup.ErrUnordered) {
		t.Errorf("got %v", err)
	}
	damaged := backup.Mark{Kind: backup.MarkDamaged, Reason: "a byte differs", Defect: backup.Changed}
	if err := errors.Join(
		c.Marks().Pin(t.Context(), item(all[1]), "keep", "me"), c.Marks().Add(t.Context(), item(all[1]), damaged),
	); err != nil {
		t.Fatal(err)
	}
	for n, m := range all {
		i, err := choice.FindIn(t.Context(), c, string(m.ID))
		if err != nil || i.ID != m.ID || !i.Exists || len(i.Data) != 1 {
			t.Errorf("got %+v, %v", i, err)
		}
		if (i.Defect() != nil) != (n == 1) || i.Pinned() != (n == 1) {
			t.Errorf("got %+v, defect %v", i, i.Defect())
		}
	}
}
