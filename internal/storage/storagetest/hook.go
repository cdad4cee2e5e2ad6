package storagetest

import (
	"context"
	"io"
	"iter"
	"sync"

	"github.com/etcd-backupd/backupd/internal/storage"
)

// Hook is a store in which a test does something at each operation: it fails,
// waits, changes the bytes, or does something else to the store below. Nil
// functions do nothing, and a Hook may be the store of another one. The
// functions are called in the goroutine of the operation.
type Hook struct {
	storage.Store

	// Before is called first. If it returns an error, that is the operation's,
	// and nothing else is done. The key of a list is its prefix.
	Before func(ctx context.Context, op storage.Op, key string) error

	// After is called once for each operation that Before has let through, when
	// the operation has succeeded or failed: for an Open, when its reader has come
	// to the end of the bytes or was closed; for a List, after the last object or
	// when its loop has ended. If it returns an error, an operation that has
	// succeeded fails with it, as if the answer were lost. A reader then fails
	// where it would end, a List after its last object.
	After func(ctx context.Context, op storage.Op, key string) error

	// Upload returns the reader that Create gets in place of r.
	Upload func(ctx context.Context, key string, r io.Reader) io.Reader

	// Download returns the reader behind which r is that of an Open from offset
	// on. If it has an ETag, that takes the place of r's, see [storage.ETag].
	Download func(ctx context.Context, key string, offset int64, r io.Reader) io.Reader
}

var _ storage.Store = (*Hook)(nil)

func (h *Hook) before(ctx context.Context, op storage.Op, key string) error {
	if h.Before == nil {
		return nil
	}
	return h.Before(ctx, op, key)
}

// after returns the error of an operation that has ended with err.
func (h *Hook) after(ctx context.Context, op storage.Op, key string, err error) error {
	if h.After == nil {
		return err
	}
	if lost := h.After(ctx, op, key); err == nil {
		return lost
	}
	return err
}

// Create implements [storage.Store].
func (h *Hook) Create(ctx context.Context, key string, r io.Reader) error {
	if err := h.before(ctx, storage.OpCreate, key); err != nil {
		return err
	}
	if h.Upload != nil {
		r = h.Upload(ctx, key, r)
	}
	return h.after(ctx, storage.OpCreate, key, h.Store.Create(ctx, key, r))
}

// Open implements [storage.Store].
func (h *Hook) Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if err := h.before(ctx, storage.OpOpen, key); err != nil {
		return nil, err
	}
	body, err := h.Store.Open(ctx, key, offset, length)
	if err != nil {
		return nil, h.after(ctx, storage.OpOpen, key, err)
	}
	r := &hookedReader{Reader: body, body: body}
	if h.Download != nil {
		r.Reader = h.Download(ctx, key, offset, body)
	}
	r.ended = sync.OnceValue(func() error { return h.after(ctx, storage.OpOpen, key, nil) })
	return r, nil
}

// Stat implements [storage.Store].
func (h *Hook) Stat(ctx context.Context, key string) (storage.Object, error) {
	if err := h.before(ctx, storage.OpStat, key); err != nil {
		return storage.Object{}, err
	}
	o, err := h.Store.Stat(ctx, key)
	if err := h.after(ctx, storage.OpStat, key, err); err != nil {
		return storage.Object{}, err
	}
	return o, nil
}

// List implements [storage.Store].
func (h *Hook) List(ctx context.Context, prefix, after string) iter.Seq2[storage.Object, error] {
	return func(yield func(storage.Object, error) bool) {
		if err := h.before(ctx, storage.OpList, prefix); err != nil {
			yield(storage.Object{}, err)
			return
		}
		var failed error
		for o, err := range h.Store.List(ctx, prefix, after) {
			if failed = err; err != nil {
				break
			}
			if !yield(o, nil) {
				_ = h.after(ctx, storage.OpList, prefix, nil) // the loop has ended
				return
			}
		}
		if err := h.after(ctx, storage.OpList, prefix, failed); err != nil {
			yield(storage.Object{}, err)
		}
	}
}

// Delete implements [storage.Store].
func (h *Hook) Delete(ctx context.Context, key string) error {
	if err := h.before(ctx, storage.OpDelete, key); err != nil {
		return err
	}
	return h.after(ctx, storage.OpDelete, key, h.Store.Delete(ctx, key))
}

// hookedReader reads what the hook makes of body.
type hookedReader struct {
	io.Reader
	body  io.ReadCloser
	ended func() error // calls After, once
}

func (r *hookedReader) ETag() string {
	if t, ok := r.Reader.(storage.Tagger); ok {
		return t.ETag()
	}
	return storage.ETag(r.body)
}

func (r *hookedReader) Read(p []byte) (int, error) {
	n, err := r.Reader.Read(p)
	if err == io.EOF {
		if lost := r.ended(); lost != nil {
			err = lost
		}
	}
	return n, err
}

// Close returns no error of After: a caller that closes early has read enough.
func (r *hookedReader) Close() error {
	err := r.body.Close()
	_ = r.ended()
	return err
}

// CutAfter returns the first n bytes of r, and then what fail returns. While
// fail waits, so does the reader.
func CutAfter(n int64, r io.Reader, fail func() error) io.Reader {
	return io.MultiReader(io.LimitReader(r, n), failing(fail))
}

type failing func() error

func (f failing) Read([]byte) (int, error) { return 0, f() }
