package repository_test

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"testing"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/repository/prune"
	"github.com/etcd-backupd/backupd/internal/storage"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest/mem"
)

// stamps are the kinds and times of the marks of verifications that a listing shows.
func stamps(t *testing.T, s storage.Store, m *backup.Manifest) (out []string) {
	t.Helper()
	i := find(t, prod(s), m.ID)
	for _, k := range i.Verifications {
		out = append(out, string(k.Mark)+" "+k.Stamp)
	}
	return out
}

// TestVerified: a mark says when a snapshot was verified, and takes the place of the ones
// that say no more. It changes nothing else that is known of the snapshot.
func TestVerified(t *testing.T) {
	s := mem.New()
	m := daily(t, s, 1)[0]
	at := started.AddDate(0, 0, 9)
	verified := func(s storage.Store, kind backup.MarkKind, hour int) error {
		_, err := prod(s).Marks().Verified(t.Context(), find(t, prod(s), m.ID), kind,
			at.Add(time.Duration(hour)*time.Hour), "root@host")
		return err
	}
	want := func(when string, want ...string) {
		t.Helper()
		if got := stamps(t, s, m); !slices.Equal(got, want) {
			t.Errorf("%s: got %q", when, got)
		}
	}
	stamp := func(hour int) string { return backup.TimeOf(at.Add(time.Duration(hour) * time.Hour)) }
	for hour, c := range []struct {
		kind backup.MarkKind
		want []string
	}{
		{backup.MarkReadBack, []string{"read-back " + stamp(0)}},
		{backup.MarkReadBack, []string{"read-back " + stamp(1)}},
		{backup.MarkVerified, []string{"verified " + stamp(2)}},
		{backup.MarkReadBack, []string{"read-back " + stamp(3), "verified " + stamp(2)}},
		{backup.MarkVerified, []string{"verified " + stamp(4)}},
		{backup.MarkVerified, []string{"verified " + stamp(5)}},
	} {
		for range 2 { // another process was as quick
			if err := verified(s, c.kind, hour); err != nil {
				t.Fatal(err)
			}
		}
		want("hour", c.want...)
	}
	raw := readObject(t, s, m.Cluster+"/marks/"+string(m.ID)+".verified."+stamp(5)+".json")
	if mark, err := backup.ParseMark(raw); err != nil || mark.Kind != backup.MarkVerified || mark.By != "root@host" ||
		!mark.At.Equal(at.Add(5*time.Hour).Truncate(time.Second)) {
		t.Errorf("got %+v, %v", mark, err)
	}
	if i := find(t, prod(s), m.ID); i.State() != backup.Verified || len(i.Marks) != 0 || i.Pinned() {
		t.Errorf("got %+v", i)
	}

	// Where nothing may be deleted, the old mark stays, and the new one counts.
	for hour, refused := range []error{fs.ErrPermission, storage.ErrLocked} {
		hook := &storagetest.Hook{Store: s, Before: func(_ context.Context, op storage.Op, _ string) error {
			if op == storage.OpDelete {
				return refused
			}
			return nil
		}}
		if err := verified(hook, backup.MarkVerified, 6+hour); err != nil {
			t.Error(err)
		}
	}
	want("locked", "verified "+stamp(5), "verified "+stamp(6), "verified "+stamp(7))

	// They go with the snapshot, and what is left of them goes with the next prune.
	item := find(t, prod(s), m.ID)
	if err := prune.Delete(t.Context(), prod(s), m.ID, "op"); err != nil {
		t.Fatal(err)
	}
	_, err := prod(s).Marks().Verified(t.Context(), item, backup.MarkVerified, at, "op")
	if !errors.As(err, new(*repository.NotFoundError)) || len(keys(t, s)) != 1 {
		t.Errorf("of one that is gone: %v, left %v", err, keys(t, s))
	}
}

// TestVerified_Fails: what cannot be marked is an error, and the mark before stays.
func TestVerified_Fails(t *testing.T) {
	for n := 0; ; n++ {
		s := mem.New()
		m := daily(t, s, 1)[0]
		i := find(t, prod(s), m.ID)
		if _, err := prod(s).Marks().Verified(t.Context(), i, backup.MarkVerified, started, ""); err != nil {
			t.Fatal(err)
		}
		i = find(t, prod(s), m.ID)
		faulty := storagetest.FailAt(s, n, storagetest.Before, errFault)
		_, err := prod(faulty).Marks().Verified(t.Context(), i, backup.MarkVerified, started.Add(time.Hour), "")
		if len(stamps(t, s, m)) == 0 {
			t.Error("no mark is left")
		}
		if !faulty.Fired() {
			if err != nil || n < 3 {
				t.Errorf("%d operations, %v", n, err)
			}
			break
		}
		if !errors.Is(err, errFault) {
			t.Errorf("operation %d: got %v", n, err)
		}
	}
}
