package repository_test

import (
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/repository/prune"
	"github.com/etcd-backupd/backupd/internal/retention"
	"github.com/etcd-backupd/backupd/internal/storage"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest/mem"
)

// seen holds the parts of an overview that can be compared: all but times and
// tags, which only the store knows.
type seen struct {
	Items, Rest, Good []string
	Timelines         []string
	Summary, ToGo     string
}

func see(t *testing.T, o *repository.Overview, vouch int, now time.Time) seen {
	t.Helper()
	shown := func(items []repository.Item) (out []string) {
		for _, i := range items {
			text := fmt.Sprint(i.Key(), " ", i.Name, " ", i.Marks, " ", i.State(), " ", i.StoredBytes())
			for _, d := range i.Data {
				text += " " + d.Key
			}
			out = append(out, text)
		}
		return out
	}
	out := seen{Items: shown(o.Items), Rest: shown(o.Rest)}
	for _, m := range o.Good {
		out.Good = append(out.Good, m.Key())
	}
	out.Good = out.Good[:min(vouch, len(out.Good))]
	for _, l := range o.Timelines {
		text := fmt.Sprint(l.Name, " ", l.First.ID, " ", l.Head.ID, " ", l.Count, " ", l.Ended)
		if l.Manifest != nil {
			text += " " + l.Manifest.Key()
		}
		out.Timelines = append(out.Timelines, text)
	}
	sum := o.Summary(now)
	out.Summary = fmt.Sprint(sum.Verified, sum.Unconfirmed, sum.Suspect, sum.Damaged, sum.StoredBytes, sum.Newest == nil,
		sum.Future == nil)
	pl, err := prune.NewPlan(o, retention.Policy{Last: 2, MinVerified: vouch}, now)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range pl.Decisions {
		out.ToGo += fmt.Sprintln(d.ID, d.Keep)
	}
	return out
}

// TestOverview_With: after a commit the overview need not be read again.
func TestOverview_With(t *testing.T) {
	now := started.AddDate(0, 0, 9)
	nonsense := func(t *testing.T, s storage.Store, m *backup.Manifest) {
		t.Helper()
		create(t, s, m.DataKey(), []byte("0123456789"))
		create(t, s, m.Key(), []byte("nonsense"))
	}
	for name, c := range map[string]struct {
		m      *backup.Manifest
		before func(t *testing.T, s storage.Store, m *backup.Manifest)
	}{
		"Further":       {m: manifest("prod", now.Add(-time.Hour), 50)},
		"SameRevision":  {m: manifest("prod", now.Add(-time.Hour), 4)},
		"LaggingMember": {m: manifest("prod", now.Add(-time.Hour), 3)},
		"OtherHistory":  {m: manifestOf(line2, now.Add(-time.Hour), 2)},
		"Suspect":       {m: suspectManifest(now.Add(-time.Hour), 50)},
		"Unconfirmed":   {m: unconfirmedManifest(now.Add(-time.Hour), 50)},
		"Late":          {m: manifest("prod", started.AddDate(0, 0, -3).Add(time.Hour), 2)},
		"LateFirst":     {m: manifest("prod", started.AddDate(0, 0, -9), 1)},
		"Future":        {m: manifest("prod", now.Add(time.Hour), 50)},
		"NearFuture":    {m: manifest("prod", now.Add(time.Minute), 50)},
		"FutureOther":   {m: manifestOf(line2, now.Add(time.Hour), 50)},
		"First": {m: manifest("prod", now.Add(-time.Hour), 50),
			before: func(t *testing.T, s storage.Store, _ *backup.Manifest) {
				for _, key := range keys(t, s) {
					if err := s.Delete(t.Context(), key); err != nil {
						t.Fatal(err)
					}
				}
			}},
		"DataListed": {m: manifest("prod", now.Add(-time.Hour), 50),
			before: func(t *testing.T, s storage.Store, m *backup.Manifest) {
				create(t, s, m.DataKey(), []byte("0123456789"))
			}},
		"UnreadableHead": {m: manifest("prod", now.Add(-time.Hour), 50),
			before: func(t *testing.T, s storage.Store, _ *backup.Manifest) {
				nonsense(t, s, manifest("prod", now.Add(-2*time.Hour), 60))
			}},
		"UnreadableHeadLate": {m: manifest("prod", started.AddDate(0, 0, -9), 1),
			before: func(t *testing.T, s storage.Store, _ *backup.Manifest) {
				nonsense(t, s, manifest("prod", now.Add(-2*time.Hour), 60))
			}},
		"DamagedNewest": {m: manifest("prod", now.Add(-time.Hour), 50),
			before: func(t *testing.T, s storage.Store, _ *backup.Manifest) {
				m := addSnapshot(t, s, manifest("prod", now.Add(-2*time.Hour), 60))
				record(t, s, m, defectOf(backup.Changed, m))
			}},
	} {
		t.Run(name, func(t *testing.T) {
			s := mem.New()
			daily(t, s, 4)
			create(t, s, "prod/data/20200101T000000Z-bbbbbb.db", []byte("litter"))
			if c.before != nil {
				c.before(t, s, c.m)
			}
			o := look(t, prod(s), 2, now)
			unchanged := see(t, o, 2, now)
			with := o.With(c.m, now)
			if diff := cmp.Diff(unchanged, see(t, o, 2, now)); diff != "" {
				t.Errorf("it changed the overview before:\n%s", diff)
			}
			if !slices.Contains(keys(t, s), c.m.DataKey()) {
				create(t, s, c.m.DataKey(), []byte("0123456789"))
			}
			addManifest(t, s, c.m)
			again := look(t, prod(s), 2, now)
			if diff := cmp.Diff(see(t, again, 2, now), see(t, with, 2, now)); diff != "" {
				t.Errorf("(- looked again, + computed):\n%s", diff)
			}
			if !with.Holds(c.m.ID) || o.Holds(c.m.ID) {
				t.Error("what it holds is wrong")
			}
			// A snapshot that was listed already is not counted twice.
			if diff := cmp.Diff(see(t, again, 2, now), see(t, again.With(c.m, now), 2, now)); diff != "" {
				t.Errorf("twice (- looked again, + computed):\n%s", diff)
			}
		})
	}
}

// TestOverview_Without: after a prune the overview need not be read again.
func TestOverview_Without(t *testing.T) {
	s := mem.New()
	all := daily(t, s, 6)
	o := look(t, prod(s), 2, later())
	pl, err := prune.NewPlan(o, retention.Policy{Last: 2, MinVerified: 2}, later())
	if err != nil {
		t.Fatal(err)
	}
	r, err := prune.Run(t.Context(), prod(s), pl, "op", slog.New(slog.DiscardHandler))
	if err != nil || len(r.Removed) != 4 {
		t.Fatalf("got %+v, %v", r, err)
	}
	without := o.Without(r.Removed)
	again := look(t, prod(s), 2, later())
	if lost := prune.Lost(o, again); len(lost) != 0 || len(again.Rest) != 4 {
		t.Errorf("lost %v", idsOf(lost))
	}
	again.Rest = nil // the marks of the removals
	if diff := cmp.Diff(see(t, again, 2, later()), see(t, without, 2, later())); diff != "" {
		t.Errorf("(- looked again, + computed):\n%s", diff)
	}
	if without.Holds(all[0].ID) || !o.Holds(all[0].ID) {
		t.Error("what it holds is wrong")
	}
	// The overview still tells how far the history had come.
	if o := without.Without(ids(all[5])); o.Timelines[0].Manifest.ID != all[5].ID ||
		o.Timelines[0].Head.ID != all[4].ID || len(o.Good) != 1 || o.Newest().ID != all[4].ID {
		t.Errorf("got %+v", o)
	}
}

// TestLook_Gone: a snapshot that is deleted between the listings and the reading
// is left out.
func TestLook_Gone(t *testing.T) {
	s := mem.New()
	all := daily(t, s, 3)
	o, err := prod(&storagetest.Hook{Store: s, Before: once(storage.OpOpen, "prod/snapshots/", func() {
		if err := s.Delete(t.Context(), all[2].Key()); err != nil {
			t.Fatal(err)
		}
	})}).Look(t.Context(), 1, nil, later())
	if err != nil || o.Holds(all[2].ID) || o.Newest().ID != all[1].ID || o.Timelines[0].Manifest.ID != all[1].ID {
		t.Errorf("got %+v, %v", o, err)
	}
	if got := strings.Join(lines(t, s, "prod"), "\n"); strings.Count(got, " manifest") != 2 {
		t.Errorf("got %s", got)
	}
}
