package storagetest

import (
	"context"
	"io"
	"iter"
	"sync"

	"github.com/etcd-backupd/backupd/internal/storage"
)

// When says at which moment of an operation a fault strikes.
type When int

const (
	// Before: nothing was done. A Create has not read from its reader.
	Before When = iota
	// After: it was done, and only the answer was lost. A Create has stored
	// the object; a reader from Open fails instead of ending; a List fails
	// after its last object.
	After
	// Crash: nothing was done, and nothing is done any more: every later
	// operation fails as well, as if the process or the network had died.
	Crash
)

// Faulty is a store one operation of which fails.
type Faulty struct {
	s    storage.Store
	at   int
	when When
	err  error

	mu  sync.Mutex
	ops int // guarded by mu
}

var _ storage.Store = (*Faulty)(nil)

// FailAt returns s with its n-th operation, counted from 0 over all methods,
// failing with err at the given moment. To visit every crash point, run with
// n = 0, 1, 2, ... until a run ends in which [Faulty.Fired] is false.
func FailAt(s storage.Store, n int, when When, err error) *Faulty {
	return &Faulty{s: s, at: n, when: when, err: err}
}

// Ops returns how many operations were begun.
func (f *Faulty) Ops() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.ops
}

// Fired reports whether the operation that fails was reached.
func (f *Faulty) Fired() bool { return f.Ops() > f.at }

// begin counts an operation and returns the errors to fail with before and
// after it.
func (f *Faulty) begin() (before, after error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.ops
	f.ops++
	switch {
	case n == f.at && f.when == After:
		return nil, f.err
	case n == f.at, n > f.at && f.when == Crash:
		return f.err, nil
	}
	return nil, nil
}

// Create implements [storage.Store].
func (f *Faulty) Create(ctx context.Context, key string, r io.Reader) error {
	before, after := f.begin()
	if before != nil {
		return before
	}
	if err := f.s.Create(ctx, key, r); err != nil {
		return err
	}
	return after
}

// Open implements [storage.Store].
func (f *Faulty) Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	before, after := f.begin()
	if before != nil {
		return nil, before
	}
	r, err := f.s.Open(ctx, key, offset, length)
	if err != nil || after == nil {
		return r, err
	}
	return &faultyReader{r, after}, nil
}

// Stat implements [storage.Store].
func (f *Faulty) Stat(ctx context.Context, key string) (storage.Object, error) {
	before, after := f.begin()
	if before != nil {
		return storage.Object{}, before
	}
	o, err := f.s.Stat(ctx, key)
	if err == nil && after != nil {
		return storage.Object{}, after
	}
	return o, err
}

// List implements [storage.Store].
func (f *Faulty) List(ctx context.Context, prefix, after string) iter.Seq2[storage.Object, error] {
	return func(yield func(storage.Object, error) bool) {
		before, behind := f.begin()
		if before != nil {
			yield(storage.Object{}, before)
			return
		}
		for o, err := range f.s.List(ctx, prefix, after) {
			if !yield(o, err) || err != nil {
				return
			}
		}
		if behind != nil {
			yield(storage.Object{}, behind)
		}
	}
}

// Delete implements [storage.Store].
func (f *Faulty) Delete(ctx context.Context, key string) error {
	before, after := f.begin()
	if before != nil {
		return before
	}
	if err := f.s.Delete(ctx, key); err != nil {
		return err
	}
	return after
}

// faultyReader fails where the bytes end.
type faultyReader struct {
	io.ReadCloser
	err error
}

func (r *faultyReader) ETag() string { return storage.ETag(r.ReadCloser) }

func (r *faultyReader) Read(p []byte) (int, error) {
	n, err := r.ReadCloser.Read(p)
	if err == io.EOF {
		err = r.err
	}
	return n, err
}
