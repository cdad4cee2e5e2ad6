package copies_test

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/repository/acceptance"
	"github.com/etcd-backupd/backupd/internal/storage"
)

// second makes a snapshot one of the history that came after the first, of a restored
// cluster.
func second(after *backup.Manifest) func(*backup.Manifest) {
	return func(m *backup.Manifest) {
		m.Timeline, m.ClusterID, m.NewestTimeline = line2, 8, line2
		m.Origin = &backup.Origin{Timeline: line1, Snapshot: after.ID, Reason: "it was restored"}
	}
}

// present returns the timeline that goes on, or "" if nobody knows.
func present(t *testing.T, p place) string {
	t.Helper()
	all, err := repository.ReadTimelines(t.Context(), p.prod())
	if err != nil {
		t.Fatal(err)
	}
	now, err := all.Present()
	if err != nil || now == nil {
		return ""
	}
	return now.Name
}

func accept(t *testing.T, p place, timeline string) {
	t.Helper()
	if _, err := acceptance.Accept(t.Context(), p.prod(), timeline, "we restored it", "me"); err != nil {
		t.Fatal(err)
	}
}

// TestCopy_OtherCluster: two clusters under one name are never mixed.
func TestCopy_OtherCluster(t *testing.T) {
	for name, change := range map[string]func(*backup.Manifest){
		"OtherID":     func(m *backup.Manifest) { m.Timeline, m.ClusterID = "t1-bbbbbb", 9 },
		"SameID":      func(m *backup.Manifest) { m.Timeline = "t1-bbbbbb" },
		"SameHistory": func(m *backup.Manifest) { m.ClusterID = 9 },
	} {
		t.Run(name, func(t *testing.T) {
			from, to := newPlace(t), newPlace(t)
			a, b := add(t, from, 1), add(t, to, 2, change)
			before := keys(t, to)
			_, err := copier(from, to).Plan(t.Context(), now())
			var refused *backup.RefusedError
			if !errors.As(err, &refused) || !slices.Equal(keys(t, to), before) {
				t.Fatalf("got %v", err)
			}
			for _, word := range []string{"prod", a.ClusterID.String(), b.ClusterID.String(), string(a.ID), string(b.ID)} {
				if !strings.Contains(refused.Reason, word) {
					t.Errorf("%s is not named: %s", word, refused.Reason)
				}
			}
		})
	}
}

// TestCopy_ImportedFirst: an imported snapshot does not tell its cluster, and the backups that
// come after it are of the same timeline.
func TestCopy_ImportedFirst(t *testing.T) {
	for name, far := range map[string]bool{"AtTheDestination": false, "AtTheSource": true} {
		t.Run(name, func(t *testing.T) {
			from, to := newPlace(t), newPlace(t)
			imported, taken := to, from
			if far {
				imported, taken = from, to
			}
			add(t, imported, 1, func(m *backup.Manifest) { m.ClusterID = 0 })
			add(t, taken, 2)
			p, err := copier(from, to).Plan(t.Context(), now())
			if err != nil || len(p.Missing) != 1 {
				t.Errorf("got %+v, %v", p, err)
			}
		})
	}
}

// TestCopy_Acceptance: which history is the present one is the same at both places, also if
// the first one has pruned the histories before it.
func TestCopy_Acceptance(t *testing.T) {
	from, to := newPlace(t), newPlace(t)
	first := add(t, from, 1)
	copyAll(t, copier(from, to))
	add(t, from, 2, second(first))
	if copyAll(t, copier(from, to)); present(t, from) != "" || present(t, to) != "" {
		t.Error("nobody has accepted the second history")
	}
	accept(t, from, line2)
	for _, key := range []string{first.Key(), first.DataKey()} {
		if err := from.Delete(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
	r := copyAll(t, copier(from, to))
	if len(r.Acceptances) != 1 || present(t, to) != line2 || present(t, from) != line2 {
		t.Errorf("got %+v, and %q is the present one", r, present(t, to))
	}
	if key := r.Acceptances[0].String(); !bytes.Equal(read(t, from, key), read(t, to, key)) {
		t.Error("it is another one")
	}
	if p := plan(t, copier(from, to)); len(p.Acceptances)+len(p.Disputed) != 0 {
		t.Errorf("again: %+v", p)
	}
}

// TestCopy_Disputed: a statement that the destination has, too, and that says something else
// there, is reported and stays.
func TestCopy_Disputed(t *testing.T) {
	from, to := newPlace(t), newPlace(t)
	first := add(t, from, 1)
	add(t, from, 2, second(first))
	copyAll(t, copier(from, to))
	accept(t, to, line2)
	add(t, from, 3, func(m *backup.Manifest) { m.NewestTimeline = line2 }) // the first one goes on
	accept(t, from, line2)
	p := plan(t, copier(from, to))
	if len(p.Disputed) != 1 || !strings.Contains(p.Disputed[0].Reason, "we restored it") {
		t.Fatalf("got %+v", p)
	}
	key := p.Disputed[0].Key.String()
	before := read(t, to, key)
	if copyAll(t, copier(from, to)); !bytes.Equal(read(t, to, key), before) || present(t, to) != "" {
		t.Errorf("%q is the present one", present(t, to))
	}
}

// TestCopy_Announced: what a restore has announced may still be taken back, and is copied
// when the cluster has a backup.
func TestCopy_Announced(t *testing.T) {
	from, to := newPlace(t), newPlace(t)
	first := add(t, from, 1)
	if err := acceptance.Expect(t.Context(), from.prod(), 8, first, "a restore makes it", "me"); err != nil {
		t.Fatal(err)
	}
	if r := copyAll(t, copier(from, to)); len(r.Acceptances) != 0 {
		t.Errorf("got %+v", r)
	}
	add(t, from, 2, second(first))
	if r := copyAll(t, copier(from, to)); len(r.Acceptances) != 1 || present(t, to) != line2 {
		t.Errorf("got %+v, and %q is the present one", r, present(t, to))
	}
}

// TestCopy_LongAgo: a destination that was away while its history ended at the source is of
// the same cluster all the same.
func TestCopy_LongAgo(t *testing.T) {
	from, to := newPlace(t), newPlace(t)
	first := add(t, to, 1)
	m := add(t, from, 2, second(first))
	if got := ids(copyAll(t, copier(from, to)).Copied); !slices.Equal(got, idsOf(m)) {
		t.Errorf("got %v", got)
	}
	// And by what somebody has accepted, where the chain of origins is broken.
	from, to = newPlace(t), newPlace(t)
	first = add(t, to, 1)
	var s storage.Store = from
	m = add(t, s, 2, second(first), func(m *backup.Manifest) { m.Origin.Timeline = "t1-cccccc" })
	gone := add(t, s, 1)
	accept(t, from, line2)
	for _, key := range []string{gone.Key(), gone.DataKey()} {
		if err := s.Delete(t.Context(), key); err != nil {
			t.Fatal(err)
		}
	}
	if got := ids(copyAll(t, copier(from, to)).Copied); !slices.Equal(got, idsOf(m)) {
		t.Errorf("got %v", got)
	}
}
