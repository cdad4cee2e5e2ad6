package catalog

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"regexp"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// Second holds the objects that were begun in one second.
type Second struct {
	Data, Manifests, Marks []Object
	// Others are objects among the manifests whose names only another version of
	// backupd may know.
	Others []backup.Object
}

// Claims reports whether one of the others may be the manifest of the data: see
// [Catalog.Claimed].
func (s *Second) Claims(name backup.DataName) bool {
	for _, o := range s.Others {
		if claims(o.Key, name) {
			return true
		}
	}
	return false
}

// Seconds yields all objects of the cluster that were begun in the second from or
// later, grouped by second, the oldest first. It lists page by page, and holds no
// more than one second. An error ends it: it is yielded once, last.
func (c Catalog) Seconds(ctx context.Context, from string) iter.Seq2[Second, error] {
	return func(yield func(Second, error) bool) {
		// Data first: a backup that ends meanwhile then shows its manifest, or
		// nothing, rather than data that looks abandoned.
		data := newListing(ctx, c, backup.DataPrefix(c.Cluster), from, ours)
		defer data.stop()
		manifests := newListing(ctx, c, backup.ManifestPrefix(c.Cluster), from, begunSometime)
		defer manifests.stop()
		marks := newListing(ctx, c, backup.MarkPrefix(c.Cluster), from, ours)
		defer marks.stop()
		for {
			second := min(data.second(), manifests.second(), marks.second())
			group := Second{Data: data.take(second), Marks: marks.take(second)}
			for _, o := range manifests.take(second) {
				if o.Name.Kind == "" {
					group.Others = append(group.Others, o.Object)
				} else {
					group.Manifests = append(group.Manifests, o)
				}
			}
			if err := cmp.Or(data.err, manifests.err, marks.err); err != nil {
				yield(Second{}, err)
				return
			}
			if second == atEnd || !yield(group, nil) {
				return
			}
		}
	}
}

// Second returns the objects of the cluster that were begun in one second. It lists only
// these, so that a store needs no order to find one snapshot: where it has none, and several
// were begun in that second, only what is of the snapshot id is found, and of its marks those
// that say that it must stay, or that it is damaged.
func (c Catalog) Second(ctx context.Context, id backup.SnapshotID) (Second, error) {
	var group Second
	second := SecondOf(string(id)) + "-"
	var err error
	if group.Data, err = c.either(ctx, backup.DataPrefix(c.Cluster), second, string(id.DataName())+".", ours); err != nil {
		return Second{}, err
	}
	manifests, err := c.either(ctx, backup.ManifestPrefix(c.Cluster), second, string(id)+".", begunSometime)
	if err != nil {
		return Second{}, err
	}
	for _, o := range manifests {
		if o.Name.Kind == "" {
			group.Others = append(group.Others, o.Object)
		} else {
			group.Manifests = append(group.Manifests, o)
		}
	}
	group.Marks, err = c.All(ctx, backup.MarkPrefix(c.Cluster)+second)
	if errors.Is(err, backup.ErrUnordered) {
		group.Marks, err = c.marksOf(ctx, id)
	}
	return group, err
}

// either lists the wanted objects in a folder whose names begin with wide or, if they come in
// no order, with narrow.
func (c Catalog) either(ctx context.Context, folder, wide, narrow string, w wanted) ([]Object, error) {
	all, err := c.all(ctx, folder+wide, w)
	if errors.Is(err, backup.ErrUnordered) {
		return c.all(ctx, folder+narrow, w)
	}
	return all, err
}

// marksOf looks for the marks of a snapshot that matter most by their names.
func (c Catalog) marksOf(ctx context.Context, id backup.SnapshotID) (out []Object, err error) {
	for _, kind := range []backup.MarkKind{backup.MarkDamaged, backup.MarkPin} {
		k := backup.Key{Cluster: c.Cluster, Kind: backup.KindMark, ID: id, Mark: kind}
		there, err := c.Has(ctx, k)
		if err != nil {
			return nil, err
		}
		if there {
			out = append(out, Object{backup.Object{Key: k.String()}, k})
		}
	}
	return out, nil
}

// wanted parses the name of an object, and reports whether a listing yields it.
type wanted func(key string) (backup.Key, bool)

func ours(key string) (backup.Key, bool) {
	k, err := backup.ParseKey(key)
	return k, err == nil
}

// begunSometime also wants foreign objects, without a parsed name, if their names
// begin with a time.
func begunSometime(key string) (backup.Key, bool) {
	k, ok := ours(key)
	return k, ok || timePattern.MatchString(belowFolder(key))
}

var timePattern = regexp.MustCompile(`^\d{8}T\d{6}Z-`)

// listing yields the objects of one kind, and shows the next one in advance.
type listing struct {
	pull func() (Object, error, bool)
	stop func()
	head *Object // nil at the end
	err  error
}

func newListing(ctx context.Context, c Catalog, prefix, second string, w wanted) *listing {
	after := ""
	if second != "" {
		after = prefix + second // a name of that second is longer, and so sorts after it
	}
	l := &listing{}
	l.pull, l.stop = iter.Pull2(c.list(ctx, prefix, after, w))
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
	switch {
	case l.head == nil:
		return atEnd
	case l.head.Name.Kind == "":
		return SecondOf(belowFolder(l.head.Key))
	}
	return SecondOf(string(l.head.Name.DataName()))
}

// take returns all objects of one second, which come next or not at all.
func (l *listing) take(second string) []Object {
	var out []Object
	for l.head != nil && l.second() == second {
		out = append(out, *l.head)
		l.advance()
	}
	return out
}
