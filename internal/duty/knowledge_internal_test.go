package duty

import (
	"errors"
	"testing"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest/mem"
)

// TestKnowledge_Saw: what is known follows the repository, also backwards.
func TestKnowledge_Saw(t *testing.T) {
	older, newer := storedAt(ago(2*time.Hour), 7), storedAt(ago(time.Hour), 8)
	listed := func(ms ...*backup.Manifest) *repository.Overview {
		s := mem.New()
		put(t, s, ms...)
		return overview(t, s, noon)
	}
	k := NewKnowledge(noon, "")
	want := func(what string, newest *backup.Manifest, confirmed time.Time) {
		t.Helper()
		f := k.Now()
		got := f.Newest()
		if (got == nil) != (newest == nil) || got != nil && got.ID != newest.ID || !f.Confirmed.Equal(confirmed) ||
			!f.Protected {
			t.Errorf("%s: newest %+v, confirmed at %v", what, got, f.Confirmed)
		}
	}
	see := func(ms ...*backup.Manifest) {
		k.begin()
		k.saw("any", listed(ms...), noon)
	}
	see(older, newer)
	want("first", newer, newer.StartedAt)
	if f := k.Now(); f.RepositoryID != "any" || !f.Read.Equal(noon) || f.ReadErr != nil {
		t.Errorf("got %+v", f)
	}
	if !k.confirmed(newer.ID, noon) { // nothing has changed since
		t.Error("not confirmed")
	}
	see(older, newer)
	want("what was confirmed stays", newer, noon)
	see(older)
	want("the newest was removed, and does not count", older, older.StartedAt)
	if k.confirmed(newer.ID, noon) {
		t.Error("a snapshot that is gone holds everything")
	}
	k.confirmed(older.ID, noon.Add(time.Hour))
	see(older)
	want("a wrong clock does not protect", older, older.StartedAt)

	// A look that began before a snapshot was stored does not take it back.
	k.begin()
	k.holds(newer, true, noon)
	want("stored", newer, newer.StartedAt)
	k.saw("any", listed(older), noon)
	want("an older look does not have the last word", newer, newer.StartedAt)
	// The next one does.
	see(older)
	want("it was removed", older, older.StartedAt)

	// Nor does it take back a defect that was found, or that none was.
	see(older, newer)
	defect := &backup.DefectError{Kind: backup.Changed, Key: newer.DataKey(), Err: backup.Corruptf("bytes")}
	k.begin()
	k.judged(newer.ID, verdict{found: defect}, noon)
	want("damaged", nil, older.StartedAt) // nobody has read the older one
	k.saw("any", listed(older, newer), noon)
	if f := k.Now(); f.Overview.Trusts(newer.ID) || !f.Confirmed.Equal(older.StartedAt) || f.Verification == nil {
		t.Errorf("a defect is forgotten: %+v", f)
	}
	k.begin()
	damaged := k.Now().Overview
	k.judged(newer.ID, verdict{}, noon)
	k.saw("any", damaged, noon)
	if f := k.Now(); !f.Overview.Trusts(newer.ID) || !f.Confirmed.Equal(newer.StartedAt) || f.Verification != nil {
		t.Errorf("a defect that is gone is kept: %+v", f)
	}

	// What was removed does not come back.
	see(older, newer)
	k.begin()
	k.removed([]backup.SnapshotID{older.ID}, noon)
	k.saw("any", listed(older, newer), noon)
	if o := k.Now().Overview; o.Holds(older.ID) || !o.Holds(newer.ID) {
		t.Errorf("got %+v", o.Items)
	}
	see()
	want("all are gone", nil, time.Time{})
}

// TestKnowledge_OldLook: the last look may be long ago when something is done.
func TestKnowledge_OldLook(t *testing.T) {
	older, newer := storedAt(ago(2*time.Hour), 7), storedAt(noon, 8)
	s := mem.New()
	put(t, s, older)
	k := NewKnowledge(noon, "")
	k.saw("any", overview(t, s, ago(2*time.Hour)), ago(2*time.Hour))
	if !k.confirmed(older.ID, ago(time.Hour)) {
		t.Error("not confirmed")
	}
	k.judged(older.ID, verdict{}, noon)
	if f := k.Now(); !f.Confirmed.Equal(ago(time.Hour)) {
		t.Errorf("verified, and confirmed at %v only", f.Confirmed)
	}
	k.holds(newer, true, noon)
	k.judged(newer.ID, verdict{found: &backup.DefectError{Err: backup.Corruptf("bytes")}}, noon)
	if f := k.Now(); !f.Confirmed.Equal(older.StartedAt) {
		t.Errorf("damaged, and confirmed at %v", f.Confirmed)
	}
}

// TestKnowledge_Unrecorded: a defect that the repository could not be told stays
// known until it is on record, is disproved, or the snapshot is gone.
func TestKnowledge_Unrecorded(t *testing.T) {
	older, newer := storedAt(ago(2*time.Hour), 7), storedAt(ago(time.Hour), 8)
	s := mem.New()
	put(t, s, older, newer)
	refused := errors.New("read only")
	found := verdict{
		found:      &backup.DefectError{Kind: backup.Changed, Key: newer.DataKey(), Err: backup.Corruptf("bytes")},
		unrecorded: refused,
	}
	for name, c := range map[string]struct {
		then  func(k *Knowledge) *repository.Overview
		knows int
	}{
		"Seen": {func(*Knowledge) *repository.Overview { return overview(t, s, noon) }, 1},
		"FailedSince": {func(k *Knowledge) *repository.Overview {
			k.judged(newer.ID, verdict{found: refused}, noon)
			return overview(t, s, noon)
		}, 1},
		"OnRecord": {func(*Knowledge) *repository.Overview {
			return overview(t, s, noon).Judged(newer.ID, found.found)
		}, 0},
		"FoundAgain": {func(k *Knowledge) *repository.Overview {
			k.judged(newer.ID, verdict{found: found.found}, noon)
			return overview(t, s, noon).Judged(newer.ID, found.found)
		}, 0},
		"Whole": {func(k *Knowledge) *repository.Overview {
			k.judged(newer.ID, verdict{}, noon)
			return overview(t, s, noon)
		}, 0},
		"Gone": {func(*Knowledge) *repository.Overview {
			return overview(t, s, noon).Without([]backup.SnapshotID{newer.ID})
		}, 0},
	} {
		k := NewKnowledge(noon, "")
		k.saw("any", overview(t, s, noon), noon)
		k.judged(newer.ID, found, noon)
		for range 2 {
			k.begin()
			k.saw("any", c.then(k), noon)
			if k.unrecordedDefects() != c.knows {
				t.Errorf("%s: %d are known", name, k.unrecordedDefects())
			}
			if trusts := k.Now().Overview.Trusts(newer.ID); trusts != (name == "Whole") {
				t.Errorf("%s: trusted: %v", name, trusts)
			}
		}
	}
}
