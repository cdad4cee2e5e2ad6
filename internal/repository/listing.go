package repository

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/storage"
)

// Items yields everything that is stored of the cluster, the oldest first:
// snapshots, and the rests of some. It reads names only, page by page, and holds
// no more than the objects that were begun in one second. After an error it ends:
// the error is yielded once, last.
func (c *Cluster) Items(ctx context.Context) iter.Seq2[Item, error] {
	return c.itemsFrom(ctx, "")
}

// itemsFrom yields the items that were begun in the given second or later. It
// joins three listings, all of which sort by time.
func (c *Cluster) itemsFrom(ctx context.Context, second string) iter.Seq2[Item, error] {
	return func(yield func(Item, error) bool) {
		if err := backup.CheckClusterName(c.name); err != nil {
			yield(Item{}, err)
			return
		}
		// Data first: if a backup ends meanwhile, its manifest is listed without
		// data, which confirm corrects, or not at all. Data without its manifest
		// would look abandoned.
		data := c.newListing(ctx, backup.DataPrefix(c.name), second)
		defer data.stop()
		manifests := c.newListing(ctx, backup.ManifestPrefix(c.name), second)
		defer manifests.stop()
		marks := c.newListing(ctx, backup.MarkPrefix(c.name), second)
		defer marks.stop()
		for {
			second := min(data.second(), manifests.second(), marks.second())
			items := join(data.pop(second), manifests.pop(second), marks.pop(second))
			err := cmp.Or(data.err, manifests.err, marks.err)
			if err == nil {
				err = c.confirm(ctx, items)
			}
			if err != nil {
				yield(Item{}, fmt.Errorf("list cluster %s: %w", c.name, err))
				return
			}
			if second == atEnd {
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
	from, err := c.since(ctx, n, end)
	if err != nil {
		return nil, err
	}
	var out []Item
	for item, err := range c.itemsFrom(ctx, from) {
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

// ancient is a time before any snapshot can have been taken.
var ancient = time.Date(2010, 1, 1, 0, 0, 0, 0, time.UTC)

// since returns the second at which a listing must begin to find n snapshots
// before end, and not many more: the start of the smallest window of time that
// holds enough. It is empty if everything has to be listed.
func (c *Cluster) since(ctx context.Context, n int, end backup.SnapshotID) (string, error) {
	start := func(window time.Duration) string { return backup.TimeOf(end.Time().Add(-window)) }
	all := end.Time().Sub(ancient)
	few, many := time.Duration(0), all // windows that hold too few, and enough
	window := time.Hour
	for probe := 0; probe < 9 && window < many && many > 2*few; probe++ {
		enough, err := c.hasBetween(ctx, n, start(window), end)
		if err != nil {
			return "", err
		}
		if enough {
			many = window
		} else {
			few = window
		}
		window = min(16*few, time.Duration(math.Sqrt(float64(few)*float64(many))))
		if few == 0 {
			break // an hour is short
		}
	}
	if many >= all {
		return "", nil
	}
	return start(many), nil
}

// hasBetween reports whether n snapshots were begun at or after from and come
// before end.
func (c *Cluster) hasBetween(ctx context.Context, n int, from string, end backup.SnapshotID) (bool, error) {
	prefix := backup.ManifestPrefix(c.name)
	for obj, err := range c.list(ctx, prefix, prefix+from) {
		if err != nil {
			return false, fmt.Errorf("list cluster %s: %w", c.name, err)
		}
		if n <= 0 || obj.key.ID.Time().After(end.Time()) {
			break
		}
		// Within one second the names are not in the order of the revisions.
		if backup.CompareIDs(obj.key.ID, end) < 0 {
			n--
		}
	}
	return n <= 0, nil
}

// list yields our objects below a prefix, with their parsed names. It passes over
// foreign ones.
func (c *Cluster) list(ctx context.Context, prefix, after string) iter.Seq2[named, error] {
	return func(yield func(named, error) bool) {
		for obj, err := range c.store().List(ctx, prefix, after) {
			if err != nil {
				yield(named{}, err)
				return
			}
			if k, err := backup.ParseKey(obj.Key); err == nil && !yield(named{obj, k}, nil) {
				return
			}
		}
	}
}

// collect returns all our objects below a prefix.
func (c *Cluster) collect(ctx context.Context, prefix string) ([]named, error) {
	var out []named
	for obj, err := range c.list(ctx, prefix, "") {
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", prefix, err)
		}
		out = append(out, obj)
	}
	return out, nil
}

// named is an object of ours with its parsed name.
type named struct {
	storage.Object
	key backup.Key
}

func (n *named) second() string {
	if n.key.Kind == backup.KindData {
		return secondOf(string(n.key.Data))
	}
	return secondOf(string(n.key.ID))
}

// secondOf returns the time that an id or a data name begins with.
func secondOf(name string) string {
	second, _, _ := strings.Cut(name, "-")
	return second
}

// listing yields the objects of one kind, and shows the next one in advance.
type listing struct {
	pull func() (named, error, bool)
	stop func()
	head *named // nil at the end
	err  error
}

func (c *Cluster) newListing(ctx context.Context, prefix, second string) *listing {
	after := ""
	if second != "" {
		after = prefix + second // a name of that second is longer, and so sorts after it
	}
	l := &listing{}
	l.pull, l.stop = iter.Pull2(c.list(ctx, prefix, after))
	l.advance()
	return l
}

func (l *listing) advance() {
	l.head = nil
	obj, err, ok := l.pull()
	if l.err = err; err == nil && ok {
		l.head = &obj
	}
}

// atEnd is after every second.
const atEnd = "end"

// second returns the second of the next object.
func (l *listing) second() string {
	if l.head == nil {
		return atEnd
	}
	return l.head.second()
}

// pop returns the next objects if they are of that second, and removes them.
func (l *listing) pop(second string) []named {
	var out []named
	for l.head != nil && l.head.second() == second {
		out = append(out, *l.head)
		l.advance()
	}
	return out
}

// join makes items of the objects of one second.
func join(data, manifests, marks []named) []Item {
	objects := map[backup.DataName][]storage.Object{}
	for _, d := range data {
		objects[d.key.Data] = append(objects[d.key.Data], d.Object)
	}
	marked := map[backup.SnapshotID][]backup.MarkKind{}
	for _, m := range marks {
		marked[m.key.ID] = append(marked[m.key.ID], m.key.Mark)
	}
	owners := map[backup.DataName]int{}
	for _, m := range manifests {
		owners[m.key.ID.DataName()]++
	}
	item := func(k backup.Key) Item {
		i := itemOf(k)
		i.Data, i.Marks = objects[i.Name], marked[k.ID]
		return i
	}
	var out []Item
	for _, m := range manifests {
		i := item(m.key)
		i.stored, i.clash = m.ModTime, owners[i.Name] > 1
		out = append(out, i)
	}
	for name := range owners { // the data of snapshots: all of it is in their items
		delete(objects, name)
	}
	for _, m := range manifests {
		delete(marked, m.key.ID)
	}
	for _, m := range marks {
		if len(marked[m.key.ID]) > 0 {
			out = append(out, item(m.key))
		}
		delete(marked, m.key.ID)
		delete(objects, m.key.ID.DataName())
	}
	for _, d := range data {
		if of, ok := objects[d.key.Data]; ok {
			out = append(out, Item{Cluster: d.key.Cluster, Name: d.key.Data, Data: of})
			delete(objects, d.key.Data)
		}
	}
	slices.SortFunc(out, compareItems)
	return out
}

// confirm looks again for data that seems to be missing: its backup may have ended
// between the listings. Data of an old manifest is not looked for again on each
// listing.
func (c *Cluster) confirm(ctx context.Context, items []Item) error {
	for i := range items {
		it := &items[i]
		// The age of the manifest counts, not that of the name: a spool may wait
		// long for its store.
		if !it.Exists || len(it.Data) > 0 || time.Since(it.stored) > LitterAge {
			continue
		}
		var err error
		if it.Data, err = c.dataOf(ctx, it.Name); err != nil {
			return err
		}
	}
	return nil
}

// dataOf lists the data objects of a snapshot. It finds them by name and does not
// need the manifest, so that a snapshot whose manifest is damaged or gone can
// still be deleted.
func (c *Cluster) dataOf(ctx context.Context, name backup.DataName) ([]storage.Object, error) {
	all, err := c.collect(ctx, backup.DataPrefix(c.name)+string(name))
	var out []storage.Object
	for _, obj := range all {
		if obj.key.Data == name {
			out = append(out, obj.Object)
		}
	}
	return out, err
}

// manifestsOf lists the manifests that refer to a data object: one or none, unless
// somebody copied objects.
func (c *Cluster) manifestsOf(ctx context.Context, name backup.DataName) ([]backup.Key, error) {
	all, err := c.collect(ctx, backup.ManifestPrefix(c.name)+secondOf(string(name))+"-r")
	var out []backup.Key
	for _, obj := range all {
		if obj.key.ID.DataName() == name {
			out = append(out, obj.key)
		}
	}
	return out, err
}
