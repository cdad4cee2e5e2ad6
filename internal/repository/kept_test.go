package repository_test

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/repository/acceptance"
	"github.com/etcd-backupd/backupd/internal/repository/identity"
	"github.com/etcd-backupd/backupd/internal/storage"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest/mem"
)

// lying answers that it stored each object whose key has some text, and stores nothing of
// it, or half.
type lying struct {
	storage.Store
	about string
	half  bool
}

func (l *lying) Create(ctx context.Context, key string, r io.Reader) error {
	if !strings.Contains(key, l.about) {
		return l.Store.Create(ctx, key, r)
	}
	raw, err := io.ReadAll(r)
	if err == nil && l.half {
		err = l.Store.Create(ctx, key, strings.NewReader(string(raw[:len(raw)/2])))
	}
	return err
}

// TestCommit_NotKept: the store answers that it stored the manifest, and has nothing of it,
// or half. Nobody is told that there is a backup, and nothing looks like one.
func TestCommit_NotKept(t *testing.T) {
	for name, half := range map[string]bool{"Nothing": false, "Half": true} {
		t.Run(name, func(t *testing.T) {
			s, m := uncommitted(t)
			err := prod(&lying{s, "/snapshots/", half}).Commit(t.Context(), m)
			if !notKept(err, m.Key()) || !strings.Contains(err.Error(), "no manifest of this snapshot is left") {
				t.Errorf("got %v", err)
			}
			if got := held(t, s); len(got) != 0 {
				t.Errorf("the store holds %q", got)
			}
		})
	}
}

// TestCommit_NotKept_Stays: half a manifest that may not be deleted is told, and the data
// stays with it: it may be a whole one that only this reader does not get.
func TestCommit_NotKept_Stays(t *testing.T) {
	s, m := uncommitted(t)
	hooked := &storagetest.Hook{Store: &lying{s, "/snapshots/", true},
		Before: func(_ context.Context, op storage.Op, _ string) error {
			if op == storage.OpDelete {
				return fs.ErrPermission
			}
			return nil
		}}
	err := prod(hooked).Commit(t.Context(), m)
	if !notKept(err, m.Key()) || !strings.Contains(err.Error(), "could not be removed") {
		t.Errorf("got %v", err)
	}
	if got, want := held(t, s), []string{m.DataKey(), m.Key()}; !slices.Equal(got, want) {
		t.Errorf("the store holds %q, want %q", got, want)
	}
}

// TestCommit_ChangedOnItsWay: one bad answer to the look is not the end of a backup.
func TestCommit_ChangedOnItsWay(t *testing.T) {
	s, m := uncommitted(t)
	reads := 0
	hooked := &storagetest.Hook{Store: s,
		Download: func(_ context.Context, key string, _ int64, r io.Reader) io.Reader {
			if key != m.Key() {
				return r
			}
			if reads++; reads == 1 {
				return io.LimitReader(r, 10)
			}
			return r
		}}
	if err := prod(hooked).Commit(t.Context(), m); err != nil || reads != 2 {
		t.Errorf("got %v after %d reads", err, reads)
	}
}

// TestCommit_Cost: a manifest costs one request more than its creation.
func TestCommit_Cost(t *testing.T) {
	s, m := uncommitted(t)
	reads := 0
	hooked := &storagetest.Hook{Store: s, Before: func(_ context.Context, op storage.Op, key string) error {
		if op != storage.OpCreate && key == m.Key() {
			reads++
		}
		return nil
	}}
	if err := prod(hooked).Commit(t.Context(), m); err != nil || reads != 1 {
		t.Errorf("got %v after %d requests", err, reads)
	}
}

func notKept(err error, key string) bool {
	var lie *storage.NotKeptError
	return errors.As(err, &lie) && lie.Key == key && errors.Is(err, backup.ErrCorrupt) &&
		!errors.Is(err, fs.ErrNotExist) && errors.As(err, new(*backup.HintError))
}

// TestMarks_NotKept: a person who pins, or says which history goes on, counts on it.
func TestMarks_NotKept(t *testing.T) {
	for name, half := range map[string]bool{"Nothing": false, "Half": true} {
		t.Run(name, func(t *testing.T) {
			s := mem.New()
			m := daily(t, s, 1)[0]
			c := prod(&lying{s, "/marks/", half})
			var lie *storage.NotKeptError
			if err := c.Marks().Pin(t.Context(), item(m), "keep", "me"); !errors.As(err, &lie) {
				t.Errorf("pin: got %v", err)
			}
			before := len(keys(t, s))
			c = prod(&lying{s, backup.AcceptancePrefix("prod"), half})
			if err := acceptance.Expect(t.Context(), c, 7, m, "a restore", "me"); !errors.As(err, &lie) {
				t.Errorf("expect: got %v", err)
			}
			if got := keys(t, s); len(got) != before {
				t.Errorf("an acceptance is left: %q", got)
			}
			if err := acceptance.Expect(t.Context(), prod(s), 7, m, "a restore", "me"); err != nil {
				t.Errorf("again: got %v", err)
			}
			if got := keys(t, s); len(got) != before+1 {
				t.Errorf("the store holds %q", got)
			}
		})
	}
}

// TestCreate_NotKept: a marker that the store did not keep is no repository, and is not told
// to be missing from an address that was wrong.
func TestCreate_NotKept(t *testing.T) {
	for name, half := range map[string]bool{"Nothing": false, "Half": true} {
		t.Run(name, func(t *testing.T) {
			create := func(s storage.Store) error {
				_, err := repository.Create(t.Context(), s)
				return err
			}
			putBack := func(s storage.Store) error {
				_, err := repository.OpenToWrite(t.Context(), s, here)
				return err
			}
			for what, err := range map[string]error{
				"create":   create(&lying{mem.New(), backup.MarkerKey, half}),
				"put back": putBack(&lying{unmarkedStore(t, here), backup.MarkerKey, half}),
			} {
				if !errors.Is(err, backup.ErrCorrupt) || errors.Is(err, fs.ErrNotExist) ||
					identity.Hint(err, "", "") != "" || !strings.Contains(err.Error(), "the store answered that") {
					t.Errorf("%s: got %v", what, err)
				}
			}
		})
	}
}
