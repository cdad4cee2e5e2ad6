package repository_test

import (
	"errors"
	"testing"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/repository/choice"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest/mem"
)

// TestOverview_Unconfirmed: an unconfirmed snapshot counts like a verified one only
// for who has switched the comparison off.
func TestOverview_Unconfirmed(t *testing.T) {
	s, now := mem.New(), started.AddDate(0, 0, 1)
	verified := addSnapshot(t, s, manifest("prod", started, 5))
	newest := unconfirmedManifest(started.Add(time.Hour), 6)
	for _, lenient := range []bool{false, true} {
		before, err := prod(s).Lenient(lenient).Look(t.Context(), 3, nil, now)
		if err != nil {
			t.Fatal(err)
		}
		after := before.With(newest, now) // for the second time in the second round
		if !lenient {
			addSnapshot(t, s, newest)
		}
		seen, err := prod(s).Lenient(lenient).Look(t.Context(), 3, nil, now)
		if err != nil {
			t.Fatal(err)
		}
		for what, o := range map[string]*repository.Overview{"With": after, "Look": seen} {
			want := verified
			if lenient {
				want = newest
			}
			sum := o.Summary(now)
			if o.Newest().ID != want.ID || sum.NewestVerified.ID != want.ID || o.Trusts(newest.ID) != lenient {
				t.Errorf("lenient %v, %s: newest %s, %s", lenient, what, o.Newest().ID, sum.NewestVerified.ID)
			}
			if sum.Verified != 1 || sum.Unconfirmed != 1 || sum.Newest.ID != newest.ID ||
				sum.Newest.State() != backup.Unconfirmed || !o.Trusts(verified.ID) {
				t.Errorf("lenient %v, %s: got %+v", lenient, what, sum)
			}
		}
	}
}

// TestChoose_Unconfirmed: it can be restored, and is offered where none is verified.
func TestChoose_Unconfirmed(t *testing.T) {
	s, now := mem.New(), started.AddDate(0, 0, 1)
	m := addSnapshot(t, s, unconfirmedManifest(started.Add(time.Hour), 6))
	for _, ref := range []string{string(m.ID), choice.Latest} {
		if i, err := choice.Choose(t.Context(), prod(s), ref, choice.Allow{}, now); err != nil || i.ID != m.ID {
			t.Errorf("%s: got %v, %v", ref, i.ID, err)
		}
	}
	addSnapshot(t, s, suspectManifest(started.Add(2*time.Hour), 7))
	offered := func() backup.SnapshotID {
		t.Helper()
		var several *choice.Error
		_, err := choice.Choose(t.Context(), prod(s), choice.Latest, choice.Allow{}, now)
		if !errors.As(err, &several) || len(several.Others) != 1 {
			t.Fatalf("got %v, %+v", err, several)
		}
		return several.Others[0].ID
	}
	if got := offered(); got != m.ID {
		t.Errorf("got %s, want the unconfirmed one", got)
	}
	verified := addSnapshot(t, s, manifest("prod", started, 5))
	if got := offered(); got != verified.ID {
		t.Errorf("got %s, want the verified one", got)
	}
}
