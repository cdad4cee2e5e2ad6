package repository_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/repository/choice"
	"github.com/etcd-backupd/backupd/internal/repository/reread"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest/mem"
)

// TestFuture: a clock that was two hours ahead decides nothing.
func TestFuture(t *testing.T) {
	now := started
	for name, c := range map[string]struct {
		all    []*backup.Manifest
		latest int // or
		rivals []int
		newest int // of the present; negative: none
	}{
		"FurtherByRightClock": {[]*backup.Manifest{
			manifest("prod", now.Add(2*time.Hour), 5), manifest("prod", now.Add(-time.Minute), 6),
		}, 1, nil, 1},
		"NothingAfterIt": {[]*backup.Manifest{
			manifest("prod", now.Add(-time.Hour), 5), manifest("prod", now.Add(2*time.Hour), 6),
		}, 1, nil, 0},
		"OnlyFuture": {[]*backup.Manifest{
			manifest("prod", now.Add(3*time.Hour), 5), manifest("prod", now.Add(2*time.Hour), 6),
		}, 1, nil, -1},
		"UnchangedSince": {[]*backup.Manifest{
			manifest("prod", now.Add(-time.Hour), 5), manifest("prod", now.Add(2*time.Hour), 5),
		}, 1, nil, 0},
		"WithinSkew": {[]*backup.Manifest{
			manifest("prod", now.Add(-time.Hour), 50), manifest("prod", now.Add(4*time.Minute), 60),
		}, 1, nil, 1},
		"Behind": {[]*backup.Manifest{
			manifest("prod", now.Add(-time.Hour), 50), manifest("prod", now.Add(-240*time.Hour), 60),
		}, 1, nil, 1},
		"OtherHistory": {[]*backup.Manifest{
			manifestOf(line1, now.Add(-time.Hour), 5), manifestOf(line2, now.Add(2*time.Hour), 60),
		}, 1, []int{1, 0}, -1},
		"OtherHistoryBehind": {[]*backup.Manifest{
			manifestOf(line1, now.Add(-time.Hour), 50), manifestOf(line2, now.Add(-240*time.Hour), 6),
		}, 1, []int{1, 0}, 1},
	} {
		t.Run(name, func(t *testing.T) {
			s := mem.New()
			for _, m := range c.all {
				addSnapshot(t, s, m)
			}
			o := look(t, prod(s), 1, now)
			if all := o.Timelines; all[0].Head.ID != c.all[c.latest].ID || all[0].Manifest.ID != c.all[c.latest].ID {
				t.Errorf("the newest history is %+v, want %v", all[0], c.all[c.latest].ID)
			}
			if i := (reread.Policy{}).Next(o.Items, now); i == nil || i.ID != c.all[c.latest].ID {
				t.Errorf("to verify is %v", i)
			}
			i, err := choice.Choose(t.Context(), prod(s), choice.Latest, choice.Allow{}, now)
			if c.rivals == nil {
				if err != nil || i.ID != c.all[c.latest].ID {
					t.Errorf("got %v, %v, want %v", i.ID, err, c.all[c.latest].ID)
				}
			} else {
				wantRivals(t, err, c.all, c.rivals)
			}
			sum := o.Summary(now)
			if (sum.Newest == nil) != (c.newest < 0) || sum.Newest != nil && sum.Newest.ID != c.all[c.newest].ID {
				t.Errorf("newest of the present is %+v", sum.Newest)
			}
			noFuture := name == "WithinSkew" || strings.Contains(name, "Behind")
			if (sum.Future != nil) == noFuture || sum.Future != nil && !sum.Future.Future(now) {
				t.Errorf("of the future is %+v", sum.Future)
			}
		})
	}
}

func wantRivals(t *testing.T, err error, all []*backup.Manifest, rivals []int) {
	t.Helper()
	var several *choice.Error
	if !errors.As(err, &several) || !errors.As(err, new(*backup.RefusedError)) || errors.Is(err, backup.ErrCorrupt) {
		t.Fatalf("got %v, want a ChoiceError", err)
	}
	var want []backup.SnapshotID
	for _, n := range rivals {
		want = append(want, all[n].ID)
		if !strings.Contains(err.Error(), string(all[n].ID)) {
			t.Errorf("%v does not name %s", err, all[n].ID)
		}
	}
	if !slices.Equal(idsOf(several.Others), want) {
		t.Errorf("got %v, want %v", idsOf(several.Others), want)
	}
}

// TestFuture_Vouch: snapshots dated a few minutes ahead are of the present,
// because clocks differ; later ones are not vouched for.
func TestFuture_Vouch(t *testing.T) {
	s := mem.New()
	all := daily(t, s, 3)
	now := started.AddDate(0, 0, 1)
	near := addSnapshot(t, s, manifest("prod", now.Add(time.Minute), 50))
	addSnapshot(t, s, manifest("prod", now.Add(time.Hour), 51))
	o := look(t, prod(s), 2, now)
	var got []backup.SnapshotID
	for _, m := range o.Good {
		got = append(got, m.ID)
	}
	if want := ids(near, all[2]); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}
