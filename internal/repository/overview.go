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

// Overview is what a repository held of one cluster at one look. Everything in it
// is computed from the listings; only [Cluster.Look] reads.
type Overview struct {
	Cluster string
	// Items are the snapshots in the order of the histories, the oldest first. No
	// clock plays a part in it.
	Items []Item
	// Rest is data that no manifest names, and marks of snapshots that are gone.
	Rest []Item
	// Good are the manifests of the newest verified snapshots, the newest first:
	// at least as many as [Cluster.Look] was asked to vouch for, if there are.
	Good []*backup.Manifest
	// Timelines are the histories of the cluster, the newest first.
	Timelines Timelines

	vouched int  // how many good ones the look was asked for
	lenient bool // unconfirmed ones count like verified ones: see [Cluster.Lenient]
	marks   map[backup.Key]backup.Mark
}

// Look lists everything that is stored of the cluster. It reads the marks, and the
// manifests of the newest verified snapshots until vouch of them are good: nothing
// may count on a snapshot whose manifest is damaged or whose data has another
// size. Older snapshots are judged by name. known is an earlier overview, or nil:
// its marks are not read again.
func (c *Cluster) Look(ctx context.Context, vouch int, known *Overview, now time.Time) (*Overview, error) {
	o := &Overview{Cluster: c.Name(), vouched: vouch, lenient: c.lenient}
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
	slices.SortFunc(o.Items, CompareHistory)
	var read map[backup.Key]backup.Mark
	manifests := map[backup.Key]*backup.Manifest{}
	if known != nil {
		read = known.marks
		for _, t := range known.Timelines {
			if t.Manifest != nil {
				manifests[t.Manifest.ObjectKey()] = t.Manifest
			}
		}
	}
	var err error
	if o.marks, err = c.Marks().read(ctx, slices.Concat(o.Items, o.Rest), read); err != nil {
		return nil, err
	}
	for n := range o.Items {
		o.Items[n].explain(o.marks)
	}
	for n := range o.Rest {
		dateMarks(&o.Rest[n], o.marks)
	}
	if err := vouchFor(ctx, c, o, vouch, now); err != nil {
		return nil, err
	}
	if err := describe(ctx, c, o, known); err != nil {
		return nil, err
	}
	for _, m := range o.Good {
		manifests[m.ObjectKey()] = m
	}
	o.Timelines, err = timelinesOf(ctx, c, o.Items, manifests)
	return o, err
}

// damagedKey returns the object that a defect of that kind is about.
func (i *Item) damagedKey(kind backup.DefectKind) string {
	of := slices.DeleteFunc(slices.Clone(i.Data), func(o storage.Object) bool {
		k, err := backup.ParseKey(o.Key)
		return err != nil || k.Files != (kind == backup.CompanionsBad)
	})
	if kind == backup.ManifestDamaged || len(of) != 1 {
		return i.Key().String()
	}
	return of[0].Key
}

// explain turns a mark of damage into the defect of the item.
func (i *Item) explain(marks map[backup.Key]backup.Mark) {
	if m, ok := marks[MarkKey(i, backup.MarkDamaged)]; ok && i.Marked(backup.MarkDamaged) {
		kind := m.Defect
		if kind == "" {
			kind = backup.Changed
		}
		i.defect = &backup.DefectError{Kind: kind, Key: i.damagedKey(kind), Err: backup.Corruptf("%s", m.Reason)}
	}
}

// dateMarks corrects the times at which marks were made by their content.
func dateMarks(i *Item, marks map[backup.Key]backup.Mark) {
	for _, kind := range i.Marks {
		m, ok := marks[MarkKey(i, kind)]
		switch {
		case ok && m.At.IsZero(): // it cannot be read
			i.marked[kind] = time.Time{}
		case ok && m.At.After(i.marked[kind]):
			i.marked[kind] = m.At
		}
	}
}

// vouchFor reads the manifests of the newest verified snapshots of each timeline.
func vouchFor(ctx context.Context, c *Cluster, o *Overview, n int, now time.Time) error {
	gone, good := map[backup.Key]bool{}, map[string]int{}
	for k := range slices.Backward(o.Items) { // the newest first
		i := &o.Items[k]
		if good[i.Timeline] >= n || !o.counts(i) || i.Future(now) {
			continue
		}
		m, err := c.Manifest(ctx, *i)
		if err == nil {
			err = i.compare(m)
			i.Doubtful = m.State() == backup.Unconfirmed && !m.Uncompared()
		}
		switch {
		case err == nil && i.Doubtful:
		case err == nil:
			o.Good = append(o.Good, m)
			good[i.Timeline]++
		case errors.Is(err, fs.ErrNotExist):
			gone[i.Key()] = true // it was deleted since the listing
		case damagedBy(err):
			i.defect = err
		case c.deniedOnly(ctx, err):
			i.Denied = err
		default:
			return err
		}
	}
	o.Items = slices.DeleteFunc(o.Items, func(i Item) bool { return gone[i.Key()] })
	return nil
}

// described is the most manifests that one look reads to describe snapshots.
const described = 100

// describe reads of which members the snapshots are that do not count, the oldest first,
// unless a look before knew it. A store may hold thousands of them. Then each look reads
// some more.
func describe(ctx context.Context, c *Cluster, o, known *Overview) error {
	before := map[backup.Key]*Item{}
	if known != nil {
		for n := range known.Items {
			before[known.Items[n].Key()] = &known.Items[n]
		}
	}
	read := 0
	for n := range o.Items {
		i := &o.Items[n]
		if s := i.State(); o.counts(i) || s != backup.Suspect && s != backup.Unconfirmed {
			continue
		}
		if b := before[i.Key()]; b != nil && (b.Source != 0 || b.Content != backup.HashKV{}) {
			i.Source, i.Content = b.Source, b.Content
			continue
		}
		if read++; read > described {
			continue
		}
		m, err := c.Manifest(ctx, *i)
		switch {
		case err == nil:
			i.Source, i.Content = m.Source.ID, m.HashKV
		case c.deniedOnly(ctx, err):
			i.Denied = err
		case !errors.Is(err, fs.ErrNotExist) && !damagedBy(err):
			return err
		}
	}
	return nil
}

// compare returns a defect if the listed data does not fit the manifest.
func (i *Item) compare(m *backup.Manifest) error {
	n := slices.IndexFunc(i.Data, func(o storage.Object) bool { return o.Key == m.DataKey() })
	if n < 0 {
		return &backup.DefectError{Kind: backup.DataMissing, Key: m.DataKey(),
			Err: backup.Corruptf("the manifest's data object is not there")}
	}
	files := m.FilesKey()
	if files != "" && !slices.ContainsFunc(i.Data, func(o storage.Object) bool {
		return o.Key == files && o.Size == m.Companions.Stored.Bytes
	}) {
		return &backup.DefectError{Kind: backup.CompanionsBad, Key: files,
			Err: backup.Corruptf("they are not there, or not whole")}
	}
	return compareSize(i.Data[n], m.Stored)
}

// Newest returns the manifest of the newest verified snapshot of the present history, or
// nil if there is none.
func (o *Overview) Newest() *backup.Manifest {
	for _, m := range o.Good {
		if o.present(m.Timeline) {
			return m
		}
	}
	return nil
}

// present reports whether the timeline is the one that goes on or, if that is not known,
// the newest of those that may.
func (o *Overview) present(timeline string) bool {
	present, _ := o.Timelines.Present()
	return present == nil || present.Name == timeline
}

// Vouched returns how many good manifests [Cluster.Look] was asked for.
func (o *Overview) Vouched() int { return o.vouched }

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

// Trusts reports whether the snapshot was listed and counts as verified.
func (o *Overview) Trusts(id backup.SnapshotID) bool {
	return slices.ContainsFunc(o.Items, func(i Item) bool { return i.ID == id && o.counts(&i) })
}

// counts reports whether a snapshot counts as verified.
func (o *Overview) counts(i *Item) bool {
	s := i.State()
	return i.Denied == nil && (s == backup.Verified || o.lenient && s == backup.Unconfirmed && !i.Doubtful)
}

// With returns the overview as it is after m was committed. It returns o itself if
// m was listed already.
func (o *Overview) With(m *backup.Manifest, now time.Time) *Overview {
	if o.Holds(m.ID) {
		return o
	}
	out, i := *o, newItem(m)
	out.Items = append(slices.Clone(o.Items), i)
	slices.SortFunc(out.Items, CompareHistory)
	out.Rest = slices.DeleteFunc(slices.Clone(o.Rest), func(rest Item) bool { return rest.Name == i.Name })
	if o.counts(&i) && !i.Future(now) {
		out.Good = append(slices.Clone(o.Good), m)
		slices.SortFunc(out.Good, func(a, b *backup.Manifest) int {
			return CompareHistory(itemOf(b.ObjectKey()), itemOf(a.ObjectKey()))
		})
	}
	out.Timelines = o.Timelines.renew(out.Items, m)
	return &out
}

// Judged returns the overview as it is after a verification found a defect of a
// snapshot or, if defect is nil, found it whole.
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

// Verified returns the overview as it is after a verification left its mark.
func (o *Overview) Verified(mark backup.Key) *Overview {
	out := *o
	out.Items = slices.Clone(o.Items)
	for n := range out.Items {
		if i := &out.Items[n]; i.ID == mark.ID {
			i.Verifications = append(slices.Clone(i.Verifications), mark)
		}
	}
	return &out
}

// Without returns the overview as it is after snapshots were removed.
func (o *Overview) Without(ids []backup.SnapshotID) *Overview {
	out := *o
	gone := func(id backup.SnapshotID) bool { return slices.Contains(ids, id) }
	out.Items = slices.DeleteFunc(slices.Clone(o.Items), func(i Item) bool { return gone(i.ID) })
	out.Good = slices.DeleteFunc(slices.Clone(o.Good), func(m *backup.Manifest) bool { return gone(m.ID) })
	out.Timelines = o.Timelines.renew(out.Items, nil)
	return &out
}

// Summary holds the figures of an overview, for metrics and health.
type Summary struct {
	Verified, Unconfirmed, Suspect, Damaged int

	StoredBytes int64
	// Newest and NewestVerified are the last ones of the present history, but for those
	// from the future. In a lenient overview unconfirmed ones count as verified.
	Newest, NewestVerified *Item
	// LastVerified is when the last one that counts as verified was begun by the clocks.
	LastVerified  time.Time
	NewestDamaged *Item
	Future        *Item // the newest that is from the future
	Denied        *Item // the newest whose manifest cannot be read here
}

// Summary counts the snapshots, and finds the newest of each kind.
func (o *Overview) Summary(now time.Time) Summary {
	var s Summary
	for n := range o.Items {
		i := &o.Items[n]
		s.StoredBytes += i.StoredBytes()
		if i.Denied != nil {
			s.Denied = i
		}
		if i.Future(now) {
			s.Future = i
		} else if o.present(i.Timeline) {
			s.Newest = i
			if at := i.ID.Time(); o.counts(i) {
				s.NewestVerified = i
				if at.After(s.LastVerified) {
					s.LastVerified = at
				}
			}
		}
		switch i.State() {
		case backup.Damaged:
			s.Damaged++
			s.NewestDamaged = i
		case backup.Suspect:
			s.Suspect++
		case backup.Unconfirmed:
			s.Unconfirmed++
		default:
			s.Verified++
		}
	}
	return s
}
