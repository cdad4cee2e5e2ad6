package repository

import (
	"context"
	"errors"
	"io/fs"
	"slices"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/storage"
)

// Overview is what a repository held of one cluster when it was looked at. All
// that it says is computed from what was listed; only [Cluster.Look] reads.
type Overview struct {
	Cluster string
	// Items are the snapshots, the oldest first.
	Items []Item
	// Rest is what is left of others: data that no manifest names, marks about
	// nothing.
	Rest []Item
	// Good are the manifests of the newest verified snapshots that were read, the
	// newest first.
	Good []*backup.Manifest
	// Previous is the manifest of the snapshot that the next one may continue, or
	// nil: see [Cluster.Previous].
	Previous *backup.Manifest

	vouched int // how many good ones were looked for
	marks   map[backup.Key]backup.Mark
}

// Look lists what is stored of the cluster, reads its marks and the manifests of
// the newest verified snapshots until as many as vouch are good: nothing must
// count on one whose manifest is damaged or whose data is cut. Of older ones
// names have to do. known is an earlier overview, or nil: marks that it has are
// not read again.
func (c *Cluster) Look(ctx context.Context, vouch int, known *Overview, now time.Time) (*Overview, error) {
	o := &Overview{Cluster: c.name, vouched: vouch}
	for i, err := range c.Items(ctx) {
		switch {
		case err != nil:
			return nil, err
		case i.Exists:
			o.Items = append(o.Items, i)
		default:
			o.Rest = append(o.Rest, i)
		}
	}
	var read map[backup.Key]backup.Mark
	if known != nil {
		read = known.marks
	}
	var err error
	if o.marks, err = c.readMarks(ctx, o.Items, read); err != nil {
		return nil, err
	}
	for n := range o.Items {
		o.Items[n].explain(o.marks)
	}
	if err := c.vouch(ctx, o, vouch, now); err != nil {
		return nil, err
	}
	o.Previous, err = c.previous(ctx, o.Items, o.Good, now)
	return o, err
}

// explain puts what a mark says of the damage into the item's defect.
func (i *Item) explain(marks map[backup.Key]backup.Mark) {
	if m, ok := marks[markKey(i.Cluster, i.ID, backup.MarkDamaged)]; ok && i.Marked(backup.MarkDamaged) {
		kind := m.Defect
		if kind == "" {
			kind = backup.Changed
		}
		i.defect = &backup.DefectError{Kind: kind, Key: i.Key().String(), Err: backup.Corruptf("%s", m.Reason)}
	}
}

func (c *Cluster) vouch(ctx context.Context, o *Overview, n int, now time.Time) error {
	gone := map[backup.Key]bool{}
	for k := range slices.Backward(o.Items) { // the newest first
		i := &o.Items[k]
		if len(o.Good) >= n {
			break
		}
		if i.State() != backup.Verified || i.Future(now) {
			continue
		}
		m, err := c.Manifest(ctx, *i)
		if err == nil {
			err = i.compare(m)
		}
		switch {
		case err == nil:
			o.Good = append(o.Good, m)
		case errors.Is(err, fs.ErrNotExist):
			gone[i.Key()] = true // a moment ago
		case damagedBy(err):
			i.defect = err
		default:
			return err
		}
	}
	o.Items = slices.DeleteFunc(o.Items, func(i Item) bool { return gone[i.Key()] })
	return nil
}

// compare compares the data, as it was listed, with the manifest.
func (i *Item) compare(m *backup.Manifest) error {
	n := slices.IndexFunc(i.Data, func(o storage.Object) bool { return o.Key == m.DataKey() })
	if n < 0 {
		return &backup.DefectError{Kind: backup.DataMissing, Key: m.DataKey(),
			Err: backup.Corruptf("the manifest's data object is not there")}
	}
	return compareSize(i.Data[n], m.Stored)
}

// Newest is the manifest of the newest verified snapshot, or nil where none was
// found.
func (o *Overview) Newest() *backup.Manifest {
	if len(o.Good) == 0 {
		return nil
	}
	return o.Good[0]
}

// Mark returns the mark of that kind of a snapshot, or nil.
func (o *Overview) Mark(id backup.SnapshotID, kind backup.MarkKind) *backup.Mark {
	if m, ok := o.marks[markKey(o.Cluster, id, kind)]; ok {
		return &m
	}
	return nil
}

// Holds reports whether the snapshot was listed.
func (o *Overview) Holds(id backup.SnapshotID) bool {
	return slices.ContainsFunc(o.Items, func(i Item) bool { return i.ID == id })
}

// Trusts reports whether the snapshot was listed and is verified.
func (o *Overview) Trusts(id backup.SnapshotID) bool {
	return slices.ContainsFunc(o.Items, func(i Item) bool { return i.ID == id && i.State() == backup.Verified })
}

// With returns the overview as it is once m was committed. It is o itself where m
// was listed already.
func (o *Overview) With(m *backup.Manifest, now time.Time) *Overview {
	if o.Holds(m.ID) {
		return o
	}
	out, i := *o, newItem(m)
	out.Items = append(slices.Clone(o.Items), i)
	slices.SortFunc(out.Items, compareItems)
	out.Rest = slices.DeleteFunc(slices.Clone(o.Rest), func(rest Item) bool { return rest.Name == i.Name })
	if m.Verified() && !i.Future(now) {
		out.Good = append(slices.Clone(o.Good), m)
		slices.SortFunc(out.Good, func(a, b *backup.Manifest) int { return backup.CompareIDs(b.ID, a.ID) })
	}
	// The manifest of the head may not be readable: then the newest that is counts.
	head := out.Head(now).Key()
	if p := o.Previous; p == nil || head == m.ObjectKey() ||
		head != p.ObjectKey() && backup.CompareIDs(p.ID, m.ID) < 0 {
		out.Previous = m
	}
	return &out
}

// Judged returns the overview as it is once a verification found a defect of a
// snapshot, or, if defect is nil, that it is whole.
func (o *Overview) Judged(id backup.SnapshotID, defect error) *Overview {
	out := *o
	out.Items = slices.Clone(o.Items)
	for n := range out.Items {
		i := &out.Items[n]
		if i.ID != id {
			continue
		}
		i.defect = defect
		i.Marks = slices.DeleteFunc(slices.Clone(i.Marks),
			func(k backup.MarkKind) bool { return k == backup.MarkDamaged })
		if defect != nil {
			i.Marks = append(i.Marks, backup.MarkDamaged)
		}
	}
	if defect != nil {
		out.Good = slices.DeleteFunc(slices.Clone(o.Good), func(m *backup.Manifest) bool { return m.ID == id })
	}
	return &out
}

// Without returns the overview as it is once snapshots were removed. Previous
// stays: it tells how far the history had come, stored or not.
func (o *Overview) Without(ids []backup.SnapshotID) *Overview {
	out := *o
	gone := func(id backup.SnapshotID) bool { return slices.Contains(ids, id) }
	out.Items = slices.DeleteFunc(slices.Clone(o.Items), func(i Item) bool { return gone(i.ID) })
	out.Good = slices.DeleteFunc(slices.Clone(o.Good), func(m *backup.Manifest) bool { return gone(m.ID) })
	return &out
}

// Head is the furthest snapshot of the history that goes on now, whatever the
// clocks said; nil where there is none.
func (o *Overview) Head(now time.Time) *Item {
	head, _ := headOf(o.Items, now)
	return head
}

// headOf returns the furthest of the timeline of the newest snapshot that is not
// from the future. A snapshot from the future that is of another timeline may be
// of a history that came after, or of one that came before: the clock that could
// say so was wrong. Such rivals are returned too, the furthest of each timeline.
func headOf(items []Item, now time.Time) (head *Item, rivals []Item) {
	furthest := map[string]*Item{}
	var present *Item
	future := map[string]bool{}
	for n := range items {
		i := &items[n]
		if f := furthest[i.Timeline]; f == nil || compareProgress(*f, *i) < 0 {
			furthest[i.Timeline] = i
		}
		if i.Future(now) {
			future[i.Timeline] = true
		} else if present == nil || compareItems(*present, *i) < 0 {
			present = i
		}
	}
	current := ""
	switch {
	case present != nil:
		current = present.Timeline
	case len(items) > 0:
		current = items[len(items)-1].Timeline
	}
	for timeline := range future {
		if timeline != current {
			rivals = append(rivals, *furthest[timeline])
		}
	}
	slices.SortFunc(rivals, compareItems)
	return furthest[current], rivals
}

// Summary is what an overview comes to, for metrics and health.
type Summary struct {
	Verified, Suspect, Damaged int
	StoredBytes                int64
	Newest                     *Item // of all but those of the future
	NewestVerified             *Item // of those
	NewestDamaged              *Item
	Future                     *Item // the newest that is from the future
}

// Summary counts the snapshots, and names those that matter most.
func (o *Overview) Summary(now time.Time) Summary {
	var s Summary
	for n := range o.Items {
		i := &o.Items[n]
		s.StoredBytes += i.StoredBytes()
		if i.Future(now) {
			s.Future = i
		} else {
			s.Newest = i
		}
		switch i.State() {
		case backup.Damaged:
			s.Damaged++
			s.NewestDamaged = i
		case backup.Suspect:
			s.Suspect++
		default:
			s.Verified++
			if !i.Future(now) {
				s.NewestVerified = i
			}
		}
	}
	return s
}
