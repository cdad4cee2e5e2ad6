package repository_test

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/repository"
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
			manifestOf(line1, now.Add(-time.Hour), 50), manifestOf(line2, now.Add(4*time.Minute), 5),
		}, 1, nil, 1},
		"OtherHistory": {[]*backup.Manifest{
			manifestOf(line1, now.Add(-time.Hour), 5), manifestOf(line2, now.Add(2*time.Hour), 60),
		}, 0, []int{0, 1}, 0},
		"OtherHistoryBefore": {[]*backup.Manifest{
			manifestOf(line1, now.Add(-time.Hour), 50), manifestOf(line2, now.Add(2*time.Hour), 6),
			manifestOf(line2, now.Add(-2*time.Hour), 7),
		}, 0, []int{0, 2}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			s := mem.New()
			for _, m := range c.all {
				addSnapshot(t, s, m)
			}
			o := look(t, prod(s), 1, now)
			if head := o.Head(now); head == nil || head.ID != c.all[c.latest].ID || o.Previous.ID != head.ID {
				t.Errorf("head is %v, previous %v, want %v", head, o.Previous.ID, c.all[c.latest].ID)
			}
			if m, err := repository.Previous(t.Context(), prod(s), now); err != nil || m.ID != c.all[c.latest].ID {
				t.Errorf("previous is %v, %v", m, err)
			}
			if i, err := repository.Undoubted(t.Context(), prod(s), now); err != nil || i.ID != c.all[c.latest].ID {
				t.Errorf("to verify is %v, %v", i.ID, err)
			}
			i, err := prod(s).Choose(t.Context(), repository.Latest, repository.Allow{}, now)
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
			if (sum.Future == nil) != (name == "WithinSkew") || sum.Future != nil && !sum.Future.Future(now) {
				t.Errorf("of the future is %+v", sum.Future)
			}
		})
	}
}

func wantRivals(t *testing.T, err error, all []*backup.Manifest, rivals []int) {
	t.Helper()
	var choice *repository.ChoiceError
	if !errors.As(err, &choice) || !errors.As(err, new(*backup.RefusedError)) || errors.Is(err, backup.ErrCorrupt) {
		t.Fatalf("got %v, want a ChoiceError", err)
	}
	var want []backup.SnapshotID
	for _, n := range rivals {
		want = append(want, all[n].ID)
		if !strings.Contains(err.Error(), string(all[n].ID)) {
			t.Errorf("%v does not name %s", err, all[n].ID)
		}
	}
	if !slices.Equal(idsOf(choice.Others), want) {
		t.Errorf("got %v, want %v", idsOf(choice.Others), want)
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

// TestHead_Model compares the head of random repositories with that of a naive
// model.
func TestHead_Model(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		now := started
		o := &repository.Overview{Cluster: "prod"}
		for n := range rapid.IntRange(0, 7).Draw(rt, "snapshots") {
			minutes := rapid.IntRange(-3, 9).Draw(rt, "minutes")
			at := now.Add(time.Duration(minutes) * time.Minute).Format("20060102T150405Z")
			rev := rapid.IntRange(1, 4).Draw(rt, "revision")
			o.Items = append(o.Items, repository.Item{
				Cluster: "prod", Exists: true,
				Timeline: rapid.SampledFrom([]string{"a", "b", "c"}).Draw(rt, "timeline"),
				ID:       backup.SnapshotID(fmt.Sprintf("%s-r%d-aaaaa%c", at, rev, 'a'+n)),
			})
		}
		slices.SortFunc(o.Items, func(a, b repository.Item) int { return backup.CompareIDs(a.ID, b.ID) })
		head, want := o.Head(now), naiveHead(o.Items, now)
		if (head == nil) != (want == "") || head != nil && head.ID != want {
			rt.Fatalf("got %v, want %v", head, want)
		}
	})
}

// naiveHead finds the head by going through all of them again and again.
func naiveHead(items []repository.Item, now time.Time) backup.SnapshotID {
	if len(items) == 0 {
		return ""
	}
	limit := now.Add(5 * time.Minute)
	newest := func(of []repository.Item) repository.Item {
		return slices.MaxFunc(of, func(a, b repository.Item) int { return backup.CompareIDs(a.ID, b.ID) })
	}
	present := slices.DeleteFunc(slices.Clone(items), func(i repository.Item) bool { return i.ID.Time().After(limit) })
	if len(present) == 0 {
		present = items
	}
	timeline := newest(present).Timeline
	same := slices.DeleteFunc(slices.Clone(items), func(i repository.Item) bool { return i.Timeline != timeline })
	return slices.MaxFunc(same, func(a, b repository.Item) int {
		return cmp.Or(cmp.Compare(a.ID.Revision(), b.ID.Revision()), backup.CompareIDs(a.ID, b.ID))
	}).ID
}
