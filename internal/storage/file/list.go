package file

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"os"
	"path"
	"slices"
	"strings"

	"github.com/etcd-backupd/backupd/internal/storage"
)

// List implements [storage.Store]. It holds the names of one folder at a time,
// and of those above it, and reads no folder that ends before after.
func (s *Store) List(ctx context.Context, prefix, after string) iter.Seq2[storage.Object, error] {
	return func(yield func(storage.Object, error) bool) {
		root, err := s.open()
		if err != nil {
			yield(storage.Object{}, fmt.Errorf("list %s: %w", prefix, err))
			return
		}
		defer root.Close()
		w := &walk{ctx: ctx, root: root, prefix: prefix, after: after, yield: yield}
		start := "."
		if i := strings.LastIndexByte(prefix, '/'); i >= 0 {
			start = prefix[:i]
		}
		if start != "." && storage.CheckKey(start) != nil {
			return // no key begins like this
		}
		if err := w.dir(start); err != nil && !errors.Is(err, errStopped) {
			yield(storage.Object{}, fmt.Errorf("list %s: %w", prefix, explain(s.root, err)))
		}
	}
}

// errStopped ends a walk whose caller has left the loop.
var errStopped = errors.New("stopped")

type walk struct {
	ctx    context.Context // of the one call this walk lives in
	root   *os.Root
	prefix string
	after  string
	yield  func(storage.Object, error) bool
}

// entry is a file or folder of one directory. Its key, unlike its name, sorts
// as the keys do: a folder's ends in a slash, so that "a-b" comes before "a/b".
type entry struct {
	key string
	fs.DirEntry
}

func (w *walk) dir(dir string) error {
	entries, err := w.entries(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := w.ctx.Err(); err != nil {
			return err
		}
		if e.IsDir() {
			err = w.dir(strings.TrimSuffix(e.key, "/"))
		} else {
			err = w.file(e)
		}
		if err != nil {
			return err
		}
	}
	return w.ctx.Err()
}

func (w *walk) entries(dir string) ([]entry, error) {
	f, err := w.root.Open(name(dir))
	if err != nil {
		if notThere(err) {
			return nil, nil // no such prefix, or deleted meanwhile
		}
		return nil, err
	}
	defer f.Close()
	if info, err := f.Stat(); err != nil || !info.IsDir() {
		return nil, err
	}
	raw, err := f.ReadDir(-1)
	if err != nil {
		return nil, err
	}
	entries := make([]entry, 0, len(raw))
	for _, d := range raw {
		if e := (entry{path.Join(dir, d.Name()), d}); w.wanted(&e) {
			entries = append(entries, e)
		}
	}
	slices.SortFunc(entries, func(a, b entry) int { return strings.Compare(a.key, b.key) })
	return entries, nil
}

// wanted reports whether e is, or may hold, an object that begins with the
// prefix and comes after w.after, and completes the key of a folder.
func (w *walk) wanted(e *entry) bool {
	switch {
	case checkKey(e.key) != nil:
		return false // a temporary file of ours, or foreign
	case e.key == "lost+found":
		return false // the file system's own, and readable to root only
	case e.IsDir():
		e.key += "/"
		if !strings.HasPrefix(e.key, w.prefix) && !strings.HasPrefix(w.prefix, e.key) {
			return false
		}
		return e.key > w.after || strings.HasPrefix(w.after, e.key)
	}
	return e.Type().IsRegular() && strings.HasPrefix(e.key, w.prefix) && e.key > w.after
}

func (w *walk) file(e entry) error {
	info, err := e.Info()
	if errors.Is(err, fs.ErrNotExist) {
		return nil // deleted meanwhile
	}
	if err != nil {
		return err
	}
	if !w.yield(object(e.key, info), nil) {
		return errStopped
	}
	return nil
}
