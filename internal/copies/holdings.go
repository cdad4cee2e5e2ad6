package copies

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/repository"
)

// holdings are what the destination has, by the names of the data.
type holdings struct {
	snapshots map[backup.DataName]*repository.Item
	rests     map[backup.DataName]rest
}

// rest is what the destination has of a snapshot that does not exist there.
type rest struct {
	name    backup.DataName
	removed string   // why it was removed, by the mark that says so
	data    []string // the keys of what is there of it
	claimed bool     // see [repository.Item.Claimed]
}

func newHoldings(o *repository.Overview) *holdings {
	h := &holdings{map[backup.DataName]*repository.Item{}, map[backup.DataName]rest{}}
	for n := range o.Items {
		h.snapshots[o.Items[n].Name] = &o.Items[n]
	}
	for n := range o.Rest {
		i := &o.Rest[n]
		r := h.rests[i.Name]
		r.name, r.claimed = i.Name, r.claimed || i.Claimed
		for _, o := range i.Data {
			r.data = append(r.data, o.Key)
		}
		if i.Marked(backup.MarkRemoved) {
			r.removed = "a mark says so" // a look reads few of these marks
			if m := o.Mark(i.ID, backup.MarkRemoved); m != nil {
				r.removed = m.Reason
			}
		}
		h.rests[i.Name] = r
	}
	return h
}

// find returns the snapshot of the destination that has the same data name, or what is there
// of one.
func (h *holdings) find(i *repository.Item) (*repository.Item, rest) {
	return h.snapshots[i.Name], h.rests[i.Name]
}

// foreign returns data of the destination that the source does not have under that name, or
// "". A manifest must not come to it.
func (r *rest) foreign(i *repository.Item) string {
	for _, key := range r.data {
		if !slices.ContainsFunc(i.Data, func(o backup.Object) bool { return o.Key == key }) {
			return key
		}
	}
	return ""
}

// compare says what is wrong with a snapshot that both repositories have, as far as names,
// sizes and marks tell.
func (c *Copier) compare(ctx context.Context, from, to *repository.Item) (Cause, string) {
	cause, reason := compare(from, to)
	if cause == "" && to.State() != backup.Damaged && len(to.Data) < len(from.Data) && !whole(ctx, c.To, to) {
		return Damaged, fmt.Sprintf("the copy at the destination is damaged: it has %s, the source has %d",
			cmp.Or(plural(len(to.Data)), "nothing"), len(from.Data))
	}
	return cause, reason
}

// whole reports whether all is there that the manifest tells: what the source has besides is
// of no snapshot.
func whole(ctx context.Context, in *repository.Cluster, i *repository.Item) bool {
	raw, err := objectsOf(in).Read(ctx, i.Key().String(), backup.MaxManifestBytes)
	if err != nil {
		return false
	}
	m, err := backup.ParseManifest(raw)
	return err == nil && !slices.ContainsFunc(partsOf(m), func(p part) bool {
		return !slices.ContainsFunc(i.Data, func(o backup.Object) bool { return o.Key == p.key && o.Size == p.want.Bytes })
	})
}

func compare(from, to *repository.Item) (Cause, string) {
	if from.Key() != to.Key() {
		return Differs, fmt.Sprintf("the destination has %s, the source has %s", to.Key(), from.Key())
	}
	if to.Clash() {
		return Differs, fmt.Sprintf("at the destination: %v", to.Defect())
	}
	sizes := map[string]int64{}
	for _, o := range from.Data {
		sizes[o.Key] = o.Size
	}
	for _, o := range to.Data {
		size, known := sizes[o.Key]
		switch {
		case len(from.Data) == 0 || from.Defect() != nil: // the source cannot tell
		case !known:
			return Differs, fmt.Sprintf("the destination has %s, the source does not", o.Key)
		case size != o.Size:
			return Differs, fmt.Sprintf("%s has %d bytes at the destination and %d at the source", o.Key, o.Size, size)
		}
	}
	if from.State() == backup.Damaged && to.State() == backup.Damaged {
		return "", "" // nothing better is here
	}
	if to.State() == backup.Damaged {
		return Damaged, fmt.Sprintf("the copy at the destination is damaged: %v", to.Defect())
	}
	return "", ""
}

func plural(n int) string {
	switch n {
	case 0:
		return ""
	case 1:
		return "one data object"
	}
	return fmt.Sprintf("%d data objects", n)
}
