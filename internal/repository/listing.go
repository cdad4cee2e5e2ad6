package repository

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/repository/catalog"
	"github.com/etcd-backupd/backupd/internal/storage"
)

// Items yields everything that is stored of the cluster, the oldest first:
// snapshots, and the rests of some. It reads names only, page by page, and holds
// no more than the objects that were begun in one second. After an error it ends:
// the error is yielded once, last.
func (c *Cluster) Items(ctx context.Context) iter.Seq2[Item, error] {
	return itemsFrom(ctx, c.objects, "")
}

// itemsFrom yields the items that were begun in the given second or later. It
// joins three listings, all of which sort by time.
func itemsFrom(ctx context.Context, in catalog.Catalog, second string) iter.Seq2[Item, error] {
	return func(yield func(Item, error) bool) {
		if err := backup.CheckClusterName(in.Cluster); err != nil {
			yield(Item{}, err)
			return
		}
		for objects, err := range in.Seconds(ctx, second) {
			var items []Item
			if err == nil {
				items = join(objects)
				err = confirm(ctx, in, items)
			}
			if err != nil {
				yield(Item{}, fmt.Errorf("list cluster %s: %w", in.Cluster, err))
				return
			}
			for _, i := range items {
				if !yield(i, nil) {
					return
				}
			}
		}
	}
}

// Newest returns the n newest snapshots, the newest first. If before is not empty,
// only snapshots before it count. It costs a few pages of listings, however many
// snapshots and other objects there are: it looks at windows of time that end now
// and grow, until one holds enough.
func (c *Cluster) Newest(ctx context.Context, n int, before backup.SnapshotID, now time.Time) ([]Item, error) {
	// A snapshot from the future must not hide the newest of the present: it does
	// not count for the window.
	end := backup.SnapshotID(backup.TimeOf(now.Add(time.Second)) + "-r0-aaaaaa")
	if before != "" && backup.CompareIDs(before, end) < 0 {
		end = before
	}
	from, err := c.objects.Since(ctx, n, end)
	if err != nil {
		return nil, err
	}
	var out []Item
	for item, err := range itemsFrom(ctx, c.objects, from) {
		if err != nil {
			return nil, err
		}
		if before != "" && item.ID != "" && backup.CompareIDs(item.ID, before) >= 0 {
			break
		}
		if item.Exists {
			out = append(out, item)
		}
	}
	slices.Reverse(out)
	return out[:min(n, len(out))], nil
}

// join makes items of the objects of one second.
func join(in catalog.Second) []Item {
	objects := map[backup.DataName][]storage.Object{}
	for _, d := range in.Data {
		objects[d.Name.Data] = append(objects[d.Name.Data], d.Object)
	}
	marked := map[backup.SnapshotID][]catalog.Object{}
	litter := map[backup.DataName][]catalog.Object{}
	for _, m := range in.Marks {
		if m.Name.Mark == backup.MarkLitter {
			litter[m.Name.Data] = append(litter[m.Name.Data], m)
		} else {
			marked[m.Name.ID] = append(marked[m.Name.ID], m)
		}
	}
	owners, seen := map[backup.DataName]int{}, map[backup.DataName]int{}
	for _, m := range in.Manifests {
		owners[m.Name.ID.DataName()]++
	}
	item := func(k backup.Key) Item {
		i := itemOf(k)
		marks := marked[k.ID]
		if i.Exists || seen[i.Name] == 0 { // else another item has them
			i.Data, marks = objects[i.Name], slices.Concat(litter[i.Name], marks)
		}
		i.Claimed = !i.Exists && in.Claims(i.Name)
		setMarks(&i, marks)
		return i
	}
	var out []Item
	for _, m := range in.Manifests {
		i := item(m.Name)
		i.stored, i.clash = m.ModTime, owners[i.Name] > 1
		out = append(out, i)
		seen[i.Name]++
	}
	for _, m := range in.Manifests {
		delete(marked, m.Name.ID)
	}
	for _, m := range in.Marks {
		if len(marked[m.Name.ID]) > 0 {
			out = append(out, item(m.Name))
			seen[m.Name.DataName()]++
		}
		delete(marked, m.Name.ID)
	}
	for _, o := range slices.Concat(in.Data, in.Marks) {
		if name := o.Name.DataName(); seen[name] == 0 {
			out = append(out, item(backup.Key{Cluster: o.Name.Cluster, Data: name}))
			seen[name]++
		}
	}
	slices.SortFunc(out, compareItems)
	return out
}

// setMarks notes which marks there are, and when they were stored.
func setMarks(i *Item, marks []catalog.Object) {
	i.marked = map[backup.MarkKind]time.Time{}
	for _, m := range marks {
		if m.Name.Mark.Dated() {
			i.Verifications = append(i.Verifications, m.Name)
			continue
		}
		i.Marks = append(i.Marks, m.Name.Mark)
		i.marked[m.Name.Mark] = m.ModTime
	}
}

// confirm looks again for data that seems to be missing: its backup may have ended
// between the listings. Data of an old manifest is not looked for again on each
// listing.
func confirm(ctx context.Context, in catalog.Catalog, items []Item) error {
	for i := range items {
		it := &items[i]
		// The age of the manifest counts, not that of the name: a spool may wait
		// long for its store.
		if !it.Exists || it.Encoding() != "" || time.Since(it.stored) > LitterAge {
			continue
		}
		var err error
		if it.Data, err = in.Data(ctx, it.Name); err != nil {
			return err
		}
	}
	return nil
}

// Names lists the snapshots of a cluster whose ids begin with prefix, the oldest first, by the names of their manifests
// alone. The items have no data and no marks.
func Names(ctx context.Context, c *Cluster, prefix string) ([]Item, error) {
	in := c.objects
	if err := backup.CheckClusterName(in.Cluster); err != nil {
		return nil, err
	}
	all, err := in.All(ctx, backup.ManifestPrefix(in.Cluster)+prefix)
	var items []Item
	for _, obj := range all {
		items = append(items, itemOf(obj.Name))
	}
	slices.SortFunc(items, compareItems)
	return items, err
}

// Item returns everything that is stored under the id of a snapshot. If the
// manifest is gone, it returns the rest of the snapshot: see [Item.Exists]. It
// returns a [*NotFoundError] if there is nothing.
func (c *Cluster) Item(ctx context.Context, id backup.SnapshotID) (Item, error) {
	if err := backup.CheckClusterName(c.Name()); err != nil {
		return Item{}, err
	}
	objects, err := c.objects.Second(ctx, id)
	var found []Item
	if err == nil {
		found = slices.DeleteFunc(join(objects), func(i Item) bool {
			return i.ID != id && (i.ID != "" || i.Name != id.DataName())
		})
		err = confirm(ctx, c.objects, found)
	}
	if err != nil {
		return Item{}, fmt.Errorf("list cluster %s: %w", c.Name(), err)
	}
	if len(found) == 0 {
		return Item{}, noSuch(id)
	}
	i := found[len(found)-1] // if there are several they clash, and each of them says so
	i.ID = id
	if !i.Marked(backup.MarkDamaged) {
		return i, nil
	}
	marks, err := c.Marks().read(ctx, []Item{i}, nil)
	i.explain(marks)
	return i, err
}
