package repository_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/repository/acceptance"
	"github.com/etcd-backupd/backupd/internal/repository/choice"
	"github.com/etcd-backupd/backupd/internal/storage"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest/mem"
)

func defectOf(kind backup.DefectKind, m *backup.Manifest) error {
	return &backup.DefectError{Kind: kind, Key: m.DataKey(), Err: backup.Corruptf("it was\nflipped")}
}

// record records the result of a verification of the stored snapshot.
func record(t *testing.T, s storage.Store, m *backup.Manifest, result error) {
	t.Helper()
	if err := prod(s).Marks().Record(t.Context(), find(t, prod(s), m.ID), result, "verify on host"); err != nil {
		t.Fatal(err)
	}
}

// wantDefect checks the defect of an item; an empty kind means none.
func wantDefect(t *testing.T, what string, i repository.Item, kind backup.DefectKind) {
	t.Helper()
	if kind == "" {
		if i.Defect() != nil || i.State() != backup.Verified {
			t.Errorf("%s: got %v, %v", what, i.State(), i.Defect())
		}
		return
	}
	var defect *backup.DefectError
	if i.State() != backup.Damaged || !errors.As(i.Defect(), &defect) || defect.Kind != kind ||
		!errors.Is(defect, backup.ErrCorrupt) {
		t.Errorf("%s: got %v, %v, want %q", what, i.State(), i.Defect(), kind)
	}
}

// TestRecord: a defect that a verification found counts wherever the snapshot is
// judged, until a later verification finds it whole.
func TestRecord(t *testing.T) {
	s := mem.New()
	all := daily(t, s, 4)
	newest := all[3]
	record(t, s, newest, nil)
	record(t, s, newest, defectOf(backup.Truncated, newest))
	record(t, s, newest, defectOf(backup.Content, newest)) // a second one changes nothing
	p, err := prod(s).Marks().Find(t.Context(), newest.ID, backup.MarkDamaged)
	if err != nil || p == nil || p.Defect != backup.Truncated || p.Reason != "it was flipped" || p.By != "verify on host" {
		t.Errorf("got mark %+v, %v", p, err)
	}
	checkDamaged := func(kind backup.DefectKind) {
		t.Helper()
		wantDefect(t, "Item", find(t, prod(s), newest.ID), kind)
		o := look(t, prod(s), 2, later())
		wantDefect(t, "Look", o.Items[3], kind)
		listed, want := list(t, prod(s))[3], kind
		if kind != "" {
			want = backup.Changed // without reading the mark
		}
		wantDefect(t, "Items", listed, want)
		good, damaged := ids(all[2], all[1]), 1
		if kind == "" {
			good, damaged = ids(all[3], all[2]), 0
		}
		var got []backup.SnapshotID
		for _, m := range o.Good {
			got = append(got, m.ID)
		}
		if sum := o.Summary(later()); !slices.Equal(got, good) || sum.Damaged != damaged || sum.Verified != 4-damaged ||
			(sum.NewestDamaged != nil) != (damaged > 0) || o.Newest().ID != good[0] {
			t.Errorf("good are %v, want %v; %+v", got, good, sum)
		}
	}
	checkDamaged(backup.Truncated)
	record(t, s, newest, nil)
	checkDamaged("")
	if slices.Contains(keys(t, s), damagedKey(newest)) {
		t.Error("the mark is still there")
	}
	// A mark that cannot be parsed counts all the same.
	create(t, s, damagedKey(newest), []byte("nonsense"))
	checkDamaged(backup.Changed)
	record(t, s, newest, nil)
	checkDamaged("")
}

// TestRecord_Nothing: results that say nothing about what is stored.
func TestRecord_Nothing(t *testing.T) {
	s := mem.New()
	m := addSnapshot(t, s, suspectManifest(started, 5))
	doubted := &backup.DefectError{Kind: backup.Doubted, Key: m.Key(), Err: backup.Corruptf("a reason")}
	for name, result := range map[string]error{
		"Doubted": doubted, "Unreadable": errFault, "Corrupt": backup.ErrCorrupt,
	} {
		record(t, s, m, result)
		if left := keys(t, s); len(left) != 2 {
			t.Errorf("%s: got %v", name, left)
		}
	}
	// A result of suspect also says that it is not damaged.
	record(t, s, m, defectOf(backup.Changed, m))
	record(t, s, m, errFault)
	if i := find(t, prod(s), m.ID); i.State() != backup.Damaged {
		t.Errorf("what could not be read is %v", i.State())
	}
	record(t, s, m, doubted)
	if i := find(t, prod(s), m.ID); i.State() != backup.Suspect {
		t.Errorf("a suspect one that is whole again is %v", i.State())
	}
	// A snapshot that a prune removed meanwhile needs no mark.
	i := find(t, prod(s), m.ID)
	if err := s.Delete(t.Context(), m.Key()); err != nil {
		t.Fatal(err)
	}
	err := prod(s).Marks().Record(t.Context(), i, defectOf(backup.DataMissing, m), "")
	if err != nil || len(keys(t, s)) != 1 {
		t.Errorf("gone: got %v, left %v", err, keys(t, s))
	}
	err = prod(s).Marks().Record(t.Context(), find(t, prod(s), m.ID), defectOf(backup.ManifestMissing, m), "")
	if err != nil || len(keys(t, s)) != 1 {
		t.Errorf("data without manifest: got %v, left %v", err, keys(t, s))
	}
}

// TestRecord_Fails: it is an error if a result could not be recorded.
func TestRecord_Fails(t *testing.T) {
	for name, damaged := range map[string]bool{"Defect": false, "Whole": true} {
		for n := 0; ; n++ {
			s := mem.New()
			m := daily(t, s, 1)[0]
			result := defectOf(backup.Changed, m)
			if damaged {
				record(t, s, m, result)
				result = nil
			}
			faulty := storagetest.FailAt(s, n, storagetest.Before, errFault)
			err := prod(faulty).Marks().Record(t.Context(), find(t, prod(s), m.ID), result, "")
			if !faulty.Fired() {
				if err != nil || n < 2 {
					t.Errorf("%s: %d operations, %v", name, n, err)
				}
				break
			}
			if !errors.Is(err, errFault) {
				t.Errorf("%s, operation %d: got %v", name, n, err)
			}
		}
	}
}

// TestChoose_Damaged: a latest snapshot that is known to be damaged is refused,
// and the error names one that can be restored. By its id it is corrupt.
func TestChoose_Damaged(t *testing.T) {
	s := mem.New()
	furthest := addSnapshot(t, s, manifest("prod", started.AddDate(0, 0, -9), 90)) // of another member
	newest := addSnapshot(t, s, manifest("prod", started, 91))
	addSnapshot(t, s, manifest("prod", started.AddDate(0, 0, -1), 89))
	addSnapshot(t, s, manifestOf(line2, started.AddDate(0, 0, -10), 500))
	if _, err := acceptance.Accept(t.Context(), prod(s), line1, "the other was a test", "op"); err != nil {
		t.Fatal(err)
	}
	addSnapshot(t, s, suspectManifest(started.AddDate(0, 0, -2), 90))
	record(t, s, newest, defectOf(backup.Changed, newest))
	for _, a := range []choice.Allow{{}, {Suspect: true}} {
		var several *choice.Error
		var refused *backup.RefusedError
		_, err := choice.Choose(t.Context(), prod(s), choice.Latest, a, later())
		if !errors.As(err, &several) || !errors.As(err, &refused) || refused.Override != "" || several.Suspect != nil ||
			len(several.Others) != 1 || several.Others[0].ID != furthest.ID ||
			!strings.Contains(err.Error(), string(newest.ID)) ||
			!strings.Contains(err.Error(), "it was flipped") {
			t.Errorf("latest: got %v, %+v", err, several)
		}
		var defect *backup.DefectError
		_, err = choice.Choose(t.Context(), prod(s), string(newest.ID), a, later())
		if !errors.Is(err, backup.ErrCorrupt) || !errors.As(err, &defect) || defect.Kind != backup.Changed ||
			errors.As(err, &refused) {
			t.Errorf("by its id: got %v", err)
		}
	}
	if i, err := choice.FindIn(t.Context(), prod(s), choice.Latest); err != nil || i.ID != newest.ID {
		t.Errorf("found %v, %v", i.ID, err)
	}
	record(t, s, newest, nil)
	if i, err := choice.Choose(t.Context(), prod(s), choice.Latest, choice.Allow{}, later()); err != nil ||
		i.ID != newest.ID {
		t.Errorf("whole again: got %v, %v", i.ID, err)
	}
}
