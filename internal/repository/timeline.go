package repository

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/history"
	"github.com/etcd-backupd/backupd/internal/repository/lineage"
)

// Timeline is one history of a cluster, as the repository holds it.
type Timeline struct {
	Name  string
	First Item // the first snapshot that is left of it
	Head  Item // the furthest
	Count int  // of snapshots
	// Manifest is that of the furthest snapshot that is not suspect and can be read, or
	// else of the furthest that can be read; nil if none can.
	Manifest *backup.Manifest
	// Accepted says who accepted that the timeline follows the ones before it; nil if
	// nobody did.
	Accepted *lineage.Acceptance
	// Ended reports that an accepted timeline has replaced this one, and that nothing
	// was added since.
	Ended bool
}

// describe names the timeline and its furthest snapshot for people.
func (t *Timeline) describe() string {
	text := fmt.Sprintf("%s (up to snapshot %s, revision %d", t.Name, t.Head.ID, t.Head.ID.Revision())
	if m := t.Manifest; m != nil {
		text += fmt.Sprintf(", keys: %d", m.Keys)
	}
	return text + ")"
}

// cluster names the cluster behind the timeline, by its id and its members.
func (t *Timeline) cluster() string {
	if t.Manifest == nil {
		return "an unknown cluster"
	}
	text := "a cluster whose id is not known"
	if id := t.Manifest.ClusterID; id != 0 {
		text = "cluster id " + id.String()
	}
	for _, m := range t.Manifest.Members {
		text += fmt.Sprintf(", %s at %s", cmp.Or(m.Name, m.ID.String()),
			cmp.Or(strings.Join(m.ClientURLs, " "), "no address"))
	}
	return text
}

// knows reports whether the furthest snapshot was taken when the repository held the
// other timeline already.
func (t *Timeline) knows(other string) bool {
	if t.Manifest == nil {
		return false
	}
	newest := t.Manifest.NewestTimeline // two may have one number: they began at the same moment
	return newest == other || backup.TimelineNumber(newest) > backup.TimelineNumber(other)
}

// Timelines are all histories of a cluster, the newest first. Their numbers order
// them, and no clock does.
type Timelines []Timeline

// Live returns the timelines that no other has replaced. There is always one, unless
// there is no timeline at all: where acceptances contradict each other, none counts.
func (t Timelines) Live() Timelines {
	live := slices.DeleteFunc(slices.Clone(t), func(l Timeline) bool { return l.Ended })
	if len(live) == 0 {
		return t
	}
	return live
}

// Find returns the timeline of that name, or nil.
func (t Timelines) Find(name string) *Timeline {
	for n := range t {
		if t[n].Name == name {
			return &t[n]
		}
	}
	return nil
}

// Present returns the timeline that goes on. It is nil if there is none. If several
// may, the error is a [*HistoryError], and the timeline is the newest of them.
func (t Timelines) Present() (*Timeline, error) {
	live := t.Live()
	switch len(live) {
	case 0:
		return nil, nil
	case 1:
		return &live[0], nil
	}
	e := &HistoryError{Newest: live[0], Others: live[1:]}
	for _, other := range e.Others {
		e.Both = e.Both || other.knows(e.Newest.Name)
	}
	return &live[0], e
}

// Open returns the names of the timelines that nobody has accepted although they may
// replace others: see [HistoryError].
func (t Timelines) Open() map[string]bool {
	live, open := t.Live(), map[string]bool{}
	for n := range live[:max(len(live), 1)-1] { // the oldest replaces none
		open[live[n].Name] = live[n].Accepted == nil
	}
	return open
}

// HistoryError is returned while it is not known which history of a cluster is the
// present one. It wraps [backup.ErrCorrupt].
type HistoryError struct {
	Newest Timeline
	Others Timelines // older ones that may be the right one, the newest first
	// Both reports that an older one went on after the newest had begun.
	Both bool
}

func (e *HistoryError) Error() string {
	if e.Both {
		return fmt.Sprintf("two clusters are backed up under the name %s: timeline %s is of %s; timeline %s is of %s",
			e.Newest.Head.Cluster, e.Others[0].describe(), e.Others[0].cluster(), e.Newest.describe(), e.Newest.cluster())
	}
	var before []string
	for _, t := range e.Others {
		before = append(before, t.describe())
	}
	return fmt.Sprintf("cluster %s has a new history that nobody has accepted: timeline %s comes after %s: %s",
		e.Newest.Head.Cluster, e.Newest.describe(), strings.Join(before, " and "), e.Newest.reason())
}

// Unwrap makes it a fault of integrity.
func (e *HistoryError) Unwrap() error { return backup.ErrCorrupt }

// reason says why the timeline began.
func (t *Timeline) reason() string {
	if t.Manifest == nil || t.Manifest.Origin == nil {
		return "the reason is not recorded"
	}
	return t.Manifest.Origin.Reason
}

// ReadTimelines reads which histories the cluster has, and the manifest of the furthest
// snapshot of each. Where there are several, it also reads what was accepted.
func ReadTimelines(ctx context.Context, c *Cluster) (Timelines, error) {
	items, err := Names(ctx, c, "")
	if err != nil {
		return nil, err
	}
	return timelinesOf(ctx, c, items, nil)
}

// timelinesOf does not read again the manifests that are in known.
func timelinesOf(
	ctx context.Context, c *Cluster, items []Item, known map[backup.Key]*backup.Manifest,
) (Timelines, error) {
	all := divide(items)
	for n := range all {
		if err := all[n].read(ctx, c, items, known); err != nil {
			return nil, err
		}
	}
	if len(all) < 2 {
		return all, nil // there is nothing to decide
	}
	accepted, err := ReadAcceptances(ctx, c)
	if err != nil {
		return nil, err
	}
	all.accept(accepted)
	return all, nil
}

// Added returns the timelines after m was stored. A timeline to which something is added
// has not ended, unless m was taken before the one that has replaced it began.
func (t Timelines) Added(m *backup.Manifest) Timelines {
	out := slices.Clone(t)
	for n := range out {
		if out[n].Name == m.Timeline && m.NewestTimeline == out[0].Name {
			out[n].Ended = false
		}
	}
	return out
}

// renew returns the timelines of other items: m was added, or some are gone. A
// manifest stays known although its snapshot is gone: it tells how far the history
// had come.
func (t Timelines) renew(items []Item, m *backup.Manifest) Timelines {
	out := divide(items)
	for n := range out {
		now := &out[n]
		if before := t.Find(now.Name); before != nil {
			now.Manifest, now.Accepted, now.Ended = before.Manifest, before.Accepted, before.Ended
		}
		if m != nil && m.Timeline == now.Name && (now.Manifest == nil || furtherThan(m, now.Manifest)) {
			now.Manifest, now.Ended = m, false
		}
	}
	if m != nil {
		return out.Added(m)
	}
	return out
}

// furtherThan reports whether m says more of the history than the other manifest.
func furtherThan(m, other *backup.Manifest) bool {
	a, b := itemOf(m.ObjectKey()), itemOf(other.ObjectKey())
	return cmp.Or(compareDoubt(a, b), CompareProgress(b, a)) < 0
}

// divide groups snapshots by their timelines, the newest timeline first.
func divide(items []Item) Timelines {
	var out Timelines
	for _, i := range items {
		t := out.Find(i.Timeline)
		if t == nil {
			out = append(out, Timeline{Name: i.Timeline, First: i, Head: i, Count: 1})
			continue
		}
		t.Count++
		if CompareProgress(i, t.First) < 0 {
			t.First = i
		}
		if CompareProgress(t.Head, i) < 0 {
			t.Head = i
		}
	}
	slices.SortFunc(out, func(a, b Timeline) int { return backup.CompareTimelines(b.Name, a.Name) })
	return out
}

// read reads the manifest of the furthest snapshot that can be read. A suspect one
// counts only where there is no other: its content may be of no history at all.
func (t *Timeline) read(ctx context.Context, c *Cluster, items []Item, known map[backup.Key]*backup.Manifest) error {
	if m := known[t.Head.Key()]; m != nil && t.Head.Taken != backup.Suspect {
		t.Manifest = m
		return nil
	}
	own := slices.DeleteFunc(slices.Clone(items), func(i Item) bool { return i.Timeline != t.Name })
	slices.SortFunc(own, func(a, b Item) int { return cmp.Or(compareDoubt(a, b), CompareProgress(b, a)) })
	var err error
	t.Manifest, err = FirstReadable(ctx, c, own)
	return err
}

// compareDoubt puts suspect snapshots last.
func compareDoubt(a, b Item) int {
	doubt := func(i Item) int {
		if i.Taken == backup.Suspect {
			return 1
		}
		return 0
	}
	return cmp.Compare(doubt(a), doubt(b))
}

// accept judges which timelines are accepted and which have ended.
func (t Timelines) accept(accepted []lineage.Acceptance) {
	for n := range t {
		t[n].Accepted = t.acceptanceOf(n, accepted)
	}
	for n := range t {
		by := t[n].Accepted
		if by == nil {
			continue
		}
		for k := range t {
			if k != n && t[k].endedBy(&t[n]) {
				t[k].Ended = true
			}
		}
	}
}

// acceptanceOf returns the acceptance of the n-th timeline. One that names a cluster
// is about the first timeline of that cluster only: the same cluster id may come back
// when its data is lost.
func (t Timelines) acceptanceOf(n int, accepted []lineage.Acceptance) *lineage.Acceptance {
	of := t[n]
	for i, a := range accepted {
		if a.Timeline == of.Name {
			return &accepted[i]
		}
	}
	for i, a := range accepted {
		if a.Timeline != "" || of.Manifest == nil || of.Manifest.ClusterID != a.ClusterID || !descends(of.Manifest, a) {
			continue
		}
		earlier := slices.ContainsFunc(t[n+1:], func(o Timeline) bool {
			return o.Manifest == nil || o.Manifest.ClusterID == a.ClusterID
		})
		if !earlier {
			return &accepted[i]
		}
	}
	return nil
}

// endedBy reports whether an accepted timeline has replaced this one.
func (t *Timeline) endedBy(other *Timeline) bool {
	later := backup.CompareTimelines(other.Name, t.Name) > 0
	if other.Accepted.Timeline == "" { // a restore has announced it
		return later && t.Manifest != nil && !t.knows(other.Name)
	}
	last, named := other.Accepted.Ended[t.Name]
	done := cmp.Or(cmp.Compare(t.Head.Index, last.Index),
		cmp.Compare(t.Head.ID.Revision(), last.Snapshot.Revision())) <= 0 // nothing came after it
	return named && (done || later && t.Manifest != nil && !t.knows(other.Name))
}

// descends reports whether a snapshot can be of the cluster that a restore has announced.
// Another database may have got the cluster's id by its token.
func descends(m *backup.Manifest, a lineage.Acceptance) bool {
	if a.Restored == nil {
		return true // an operator knows it
	}
	from := history.Evidence{Revision: a.Restored.Revision, Sketch: a.Restored.Sketch}
	return history.Descends(from, history.Of(&m.Capture))
}

// Around returns the manifests of the snapshots that are next to a raft index, by
// timeline: of the last one up to it and of the first one after it, as far as they
// exist and can be read.
func Around(ctx context.Context, c *Cluster, index uint64) (map[string][]*backup.Manifest, error) {
	items, err := Names(ctx, c, "")
	if err != nil {
		return nil, err
	}
	slices.SortFunc(items, CompareHistory)
	out := map[string][]*backup.Manifest{}
	for _, l := range divide(items) {
		own := slices.DeleteFunc(slices.Clone(items), func(i Item) bool { return i.Timeline != l.Name })
		at := slices.IndexFunc(own, func(i Item) bool { return i.Index > index })
		if at < 0 {
			at = len(own)
		}
		before := own[:at]
		slices.Reverse(before)
		for _, side := range [][]Item{before, own[at:]} {
			m, err := FirstReadable(ctx, c, side)
			if err != nil {
				return nil, err
			}
			if m != nil {
				out[l.Name] = append(out[l.Name], m)
			}
		}
	}
	return out, nil
}

// ReadAcceptances reads all acceptances of the cluster. One that is damaged, or cannot be
// read here, accepts nothing.
func ReadAcceptances(ctx context.Context, c *Cluster) ([]lineage.Acceptance, error) {
	objects, err := c.objects.All(ctx, backup.AcceptancePrefix(c.Name()))
	if err != nil {
		return nil, err
	}
	var out []lineage.Acceptance
	for _, obj := range objects {
		raw, err := c.objects.Read(ctx, obj.Key, backup.MaxManifestBytes)
		if errors.Is(err, fs.ErrNotExist) || c.deniedOnly(ctx, err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read acceptance %s: %w", obj.Key, err)
		}
		a, err := lineage.Parse(raw)
		if err == nil && a.ObjectKey(c.Name()) == obj.Name {
			out = append(out, *a)
		}
	}
	return out, nil
}
