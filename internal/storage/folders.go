package storage

import (
	"context"
	"iter"
	"strings"
)

// Folder is a folder of a store.
type Folder struct {
	Name  string
	First Object // in the folder, by its key
}

// Folders yields the folders directly below prefix, which is empty or ends in a
// slash. It skips from each to the next, at the cost of one short listing each,
// whatever they hold. They come in the order of their keys, in which "a-b/" is
// before "a/". An error ends it: it is yielded once, last.
func Folders(ctx context.Context, s Store, prefix string) iter.Seq2[Folder, error] {
	return func(yield func(Folder, error) bool) {
		after := ""
		for {
			f, err := nextFolder(ctx, s, prefix, after)
			if err != nil {
				yield(Folder{}, err)
				return
			}
			if f.Name == "" || !yield(f, nil) {
				return
			}
			// '0' is the byte after '/'. The only key that this skips, besides those
			// in the folder, is that of an object, which is no folder.
			after = prefix + f.Name + "0"
		}
	}
}

// nextFolder returns the first folder below prefix and after a key, or none.
func nextFolder(ctx context.Context, s Store, prefix, after string) (Folder, error) {
	for o, err := range s.List(ctx, prefix, after) {
		if err != nil {
			return Folder{}, err
		}
		if name, _, ok := strings.Cut(o.Key[len(prefix):], "/"); ok {
			return Folder{name, o}, nil
		}
	}
	return Folder{}, nil
}
