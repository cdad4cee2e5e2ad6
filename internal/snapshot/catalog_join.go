package snapshot

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/storage"
)

// Item is one snapshot as the names and sizes of its objects tell it, or what
// is left of one: data that no manifest names, or a pin of nothing.
type Item struct {
	Entry // ID is empty of data that neither a manifest nor a pin names
	Name  backup.DataName
	// Manifest tells whether there is one: without it there is no snapshot.
	Manifest bool
	// Clash tells that another manifest names the same data, which backupd never
	// makes: somebody copied or renamed objects.
	Clash  bool
	Pinned bool
	// Data are the data objects: one, unless something is wrong.
	Data []storage.Object

	stored time.Time // when the manifest was
}

// StoredBytes returns the size of the snapshot's data.
func (i *Item) StoredBytes() int64 {
	n := int64(0)
	for _, o := range i.Data {
		n += o.Size
	}
	return n
}

// Encoding names how the data is encoded, or nothing where it is missing.
func (i *Item) Encoding() string {
	var out []string
	for _, o := range i.Data {
		if k, err := backup.ParseKey(o.Key); err == nil {
			out = append(out, backup.ParseSuffix(k.Suffix).String())
		}
	}
	return strings.Join(out, ",")
}

// DataMissing reports whether this is a manifest without data, which is damage.
func (i *Item) DataMissing() bool { return i.Manifest && len(i.Data) == 0 }

// Clusters returns the names of all clusters of a repository, sorted.
func Clusters(ctx context.Context, s storage.Store) ([]string, error) {
	var out []string
	for f, err := range storage.Folders(ctx, s, "") {
		ours := false
		if err == nil {
			ours, err = isCluster(ctx, s, f)
		}
		if err != nil {
			return nil, fmt.Errorf("list clusters: %w", err)
		}
		if ours {
			out = append(out, f.Name)
		}
	}
	slices.Sort(out)
	return out, nil
}

// isCluster reports whether a folder holds an object of ours. As a rule its first
// object is one; foreign objects may come before.
func isCluster(ctx context.Context, s storage.Store, f storage.Folder) (bool, error) {
	if _, err := backup.ParseKey(f.First.Key); err == nil {
		return true, nil
	}
	if backup.CheckClusterName(f.Name) != nil {
		return false, nil
	}
	for _, prefix := range []string{backup.DataPrefix(f.Name), backup.ManifestPrefix(f.Name), backup.PinPrefix(f.Name)} {
		for obj, err := range s.List(ctx, prefix, "") {
			if err != nil {
				return false, err
			}
			if _, err := backup.ParseKey(obj.Key); err == nil {
				return true, nil
			}
		}
	}
	return false, nil
}

// Catalog yields what is stored of one cluster, or of all if cluster is empty,
// the oldest first: snapshots, and what is left of some. It reads names only,
// page by page, and holds no more than what was begun in one second. An error
// ends it: it is yielded once, last.
func Catalog(ctx context.Context, s storage.Store, cluster string) iter.Seq2[Item, error] {
	return func(yield func(Item, error) bool) {
		clusters := []string{cluster}
		if cluster == "" {
			var err error
			if clusters, err = Clusters(ctx, s); err != nil {
				yield(Item{}, err)
				return
			}
		}
		for _, c := range clusters {
			if !catalogOf(ctx, s, c, yield) {
				return
			}
		}
	}
}

// catalogOf joins the three listings of a cluster, all of which sort by time. It
// reports whether to go on.
func catalogOf(ctx context.Context, s storage.Store, cluster string, yield func(Item, error) bool) bool {
	// Data first: a backup that ends meanwhile then shows its manifest, or
	// nothing, rather than data that looks abandoned.
	data := newListing(ctx, s, backup.DataPrefix(cluster))
	defer data.stop()
	manifests := newListing(ctx, s, backup.ManifestPrefix(cluster))
	defer manifests.stop()
	pins := newListing(ctx, s, backup.PinPrefix(cluster))
	defer pins.stop()
	for {
		second := firstOf(data.second(), manifests.second(), pins.second())
		items := join(data.take(second), manifests.take(second), pins.take(second))
		err := cmp.Or(data.err, manifests.err, pins.err)
		if err == nil {
			err = confirm(ctx, s, items)
		}
		if err != nil {
			yield(Item{}, fmt.Errorf("list cluster %s: %w", cluster, err))
			return false
		}
		if second == "" {
			return true
		}
		for _, i := range items {
			if !yield(i, nil) {
				return false
			}
		}
	}
}

// listing is a listing of one kind of objects, of which one is looked at in
// advance.
type listing struct {
	pull func() (storage.Object, error, bool)
	stop func()
	head *named // nil at the end
	err  error
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

func newListing(ctx context.Context, s storage.Store, prefix string) *listing {
	l := &listing{}
	l.pull, l.stop = iter.Pull2(s.List(ctx, prefix, ""))
	l.advance()
	return l
}

// advance moves to the next object of ours.
func (l *listing) advance() {
	l.head = nil
	for l.head == nil {
		obj, err, ok := l.pull()
		if l.err = err; err != nil || !ok {
			return
		}
		if k, err := backup.ParseKey(obj.Key); err == nil {
			l.head = &named{obj, k}
		}
	}
}

// second is that of the next object, or nothing at the end.
func (l *listing) second() string {
	if l.head == nil {
		return ""
	}
	return l.head.second()
}

// take returns all objects of one second, which come next or not at all.
func (l *listing) take(second string) []named {
	var out []named
	for l.head != nil && l.head.second() == second {
		out = append(out, *l.head)
		l.advance()
	}
	return out
}

func firstOf(seconds ...string) string {
	out := ""
	for _, s := range seconds {
		if s != "" && (out == "" || s < out) {
			out = s
		}
	}
	return out
}

// join makes items of the objects of one second.
func join(data, manifests, pins []named) []Item {
	objects := map[backup.DataName][]storage.Object{}
	for _, d := range data {
		objects[d.key.Data] = append(objects[d.key.Data], d.Object)
	}
	pinned := map[backup.SnapshotID]string{}
	for _, p := range pins {
		pinned[p.key.ID] = p.key.Cluster
	}
	named := map[backup.DataName]int{}
	for _, m := range manifests {
		named[m.key.ID.DataName()]++
	}
	var out []Item
	for _, m := range manifests {
		name := m.key.ID.DataName()
		_, pin := pinned[m.key.ID]
		out = append(out, Item{Entry: entryOf(m.key), Name: name, Manifest: true, Clash: named[name] > 1, Pinned: pin, Data: objects[name], stored: m.ModTime})
	}
	for _, m := range manifests {
		delete(objects, m.key.ID.DataName())
		delete(pinned, m.key.ID)
	}
	for id, cluster := range pinned {
		out = append(out, Item{Entry: Entry{Cluster: cluster, ID: id}, Name: id.DataName(), Pinned: true, Data: objects[id.DataName()]})
		delete(objects, id.DataName())
	}
	for _, d := range data {
		if of, ok := objects[d.key.Data]; ok {
			out = append(out, Item{Entry: Entry{Cluster: d.key.Cluster}, Name: d.key.Data, Data: of})
			delete(objects, d.key.Data)
		}
	}
	slices.SortFunc(out, func(a, b Item) int {
		return cmp.Or(cmp.Compare(a.ID.Revision(), b.ID.Revision()), strings.Compare(string(a.Name), string(b.Name)), compareSuspect(a.Entry, b.Entry))
	})
	return out
}

// confirm looks again for data that seems to be missing: its backup may have
// ended between the listings. Data that is missing for long is not looked for
// again and again.
func confirm(ctx context.Context, s storage.Store, items []Item) error {
	for i := range items {
		it := &items[i]
		// The manifest's age, not the name's: a spool may wait long for its store.
		if !it.DataMissing() || time.Since(it.stored) > litterAge {
			continue
		}
		var err error
		if it.Data, err = dataOf(ctx, s, it.Cluster, it.Name); err != nil {
			return err
		}
	}
	return nil
}
