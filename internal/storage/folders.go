package storage

import (
	"context"
	"iter"
	"strings"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// Folder is a folder of a store.
type Folder struct {
	Name  string
	First Object // in the folder, by its key
}

// Root is the root of a repository, whose folders are its clusters.
type Root struct{ Store }

// Clusters yields the names of the folders that may be of a cluster, as [Folders] does.
func (r Root) Clusters(ctx context.Context) iter.Seq2[string, error] {
	return func(yield func(string, error) bool) {
		for f, err := range Folders(ctx, r.Store, "") {
			if (err != nil || backup.CheckClusterName(f.Name) == nil) && !yield(f.Name, err) {
				return
			}
		}
	}
}

// Folders yields the folders directly below prefix, which is empty or ends in a
// slash. It skips from each to the next, at the cost of one short listing each,
// whatever they hold. They come in the order of their keys, in which "a-b/" is
// before "a/". An error ends it: it is yielded once, last. Of a service that does not list
// in that order it must not skip any: see [Orderer].
func Folders(ctx context.Context, s Store, prefix string) iter.Seq2[Folder, error] {
	return func(yield func(Folder, error) bool) {
		ahead := 1
		if _, service := ability[Orderer](s); service {
			ahead = looksAhead
		}
		after, seen := "", map[string]bool{}
		for {
			f, long, err := nextFolder(ctx, s, prefix, after, ahead)
			if err == nil && long && ahead > 1 {
				err = noneSkipped(ctx, s, prefix, f, seen)
			}
			if err != nil {
				yield(Folder{}, err)
				return
			}
			if f.Name == "" || !yield(f, nil) {
				return
			}
			// '0' is the byte after '/'. The only key that this skips, besides those
			// in the folder, is that of an object, which is no folder.
			after, seen[f.Name] = prefix+f.Name+"0", true
		}
	}
}

// looksAhead is how many objects of a listing are looked at: a service without order shows
// that only by the second one. One page of S3 has as many, so they cost no more.
const looksAhead = 1000

// nextFolder returns the first folder below prefix and after a key, or none. long says that
// no more than objects in it were seen.
func nextFolder(
	ctx context.Context, s Store, prefix, after string, ahead int,
) (f Folder, long bool, err error) {
	for o, err := range s.List(ctx, prefix, after) {
		if err != nil {
			return Folder{}, false, err
		}
		name, _, ok := strings.Cut(o.Key[len(prefix):], "/")
		switch {
		case f.Name != "" && name != f.Name:
			long = false
		case f.Name == "" && ok:
			f, long = Folder{name, o}, true
		}
		if ahead--; ahead <= 0 && f.Name != "" {
			return f, long, nil
		}
	}
	return f, false, nil // everything that follows was seen
}

// noneSkipped looks for folders that are in front of a long one by their keys, and were not
// listed there: where a listing follows the tree of a file system, they come behind it.
func noneSkipped(ctx context.Context, s Store, prefix string, f Folder, seen map[string]bool) error {
	for _, next := range []string{"-", "."} { // the names of clusters have no other byte before '/'
		for o, err := range s.List(ctx, prefix+f.Name+next, "") {
			if err != nil {
				return err
			}
			name, _, ok := strings.Cut(o.Key[len(prefix):], "/")
			if ok && !seen[name] {
				return Unordered(f.First.Key, o.Key)
			}
			break
		}
	}
	return nil
}
