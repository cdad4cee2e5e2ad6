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
	// Crash: nothing was done, and every later operation fails as well, as if
	// the process or the network had died.
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

// begin counts an operation and returns the store in which it happens.
func (f *Faulty) begin() *Hook {
	f.mu.Lock()
	defer f.mu.Unlock()
	n := f.ops
	f.ops++
	h := &Hook{Store: f.s}
	fail := func(context.Context, storage.Op, string) error { return f.err }
	switch {
	case n == f.at && f.when == After:
		h.After = fail
	case n == f.at, n > f.at && f.when == Crash:
		h.Before = fail
	}
	return h
}

// Create implements [storage.Store].
func (f *Faulty) Create(ctx context.Context, key string, r io.Reader) error {
	return f.begin().Create(ctx, key, r)
}

// Open implements [storage.Store].
func (f *Faulty) Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	return f.begin().Open(ctx, key, offset, length)
}

// Stat implements [storage.Store].
func (f *Faulty) Stat(ctx context.Context, key string) (storage.Object, error) {
	return f.begin().Stat(ctx, key)
}

// List implements [storage.Store].
func (f *Faulty) List(ctx context.Context, prefix, after string) iter.Seq2[storage.Object, error] {
	return func(yield func(storage.Object, error) bool) { f.begin().List(ctx, prefix, after)(yield) }
}

// Delete implements [storage.Store].
func (f *Faulty) Delete(ctx context.Context, key string) error {
	return f.begin().Delete(ctx, key)
}
