package storagetest

import (
	"context"
	"io"
	"iter"
	"strings"
	"sync"

	"github.com/etcd-backupd/backupd/internal/storage"
)

// Tracer is a store that records its operations, for golden files.
type Tracer struct {
	s     storage.Store
	mu    sync.Mutex
	lines []string // guarded by mu
}

var _ storage.Store = (*Tracer)(nil)

// Trace returns s with a record of its operations.
func Trace(s storage.Store) *Tracer { return &Tracer{s: s} }

// Lines returns the operations in the order in which they ended (a list: in
// which it began): the method in lower case, a space and the key or prefix,
// " after " and the key after which a list begins, and " failed" after those
// that returned an error.
func (t *Tracer) Lines() []string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]string(nil), t.lines...)
}

// String returns the lines as a text.
func (t *Tracer) String() string {
	var b strings.Builder
	for _, line := range t.Lines() {
		b.WriteString(line + "\n")
	}
	return b.String()
}

func (t *Tracer) record(op storage.Op, key string, err error) {
	line := string(op) + " " + key
	if err != nil {
		line += " failed"
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lines = append(t.lines, line)
}

// Create implements [storage.Store].
func (t *Tracer) Create(ctx context.Context, key string, r io.Reader) error {
	err := t.s.Create(ctx, key, r)
	t.record(storage.OpCreate, key, err)
	return err
}

// Open implements [storage.Store].
func (t *Tracer) Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	r, err := t.s.Open(ctx, key, offset, length)
	t.record(storage.OpOpen, key, err)
	return r, err
}

// Stat implements [storage.Store].
func (t *Tracer) Stat(ctx context.Context, key string) (storage.Object, error) {
	o, err := t.s.Stat(ctx, key)
	t.record(storage.OpStat, key, err)
	return o, err
}

// List implements [storage.Store].
func (t *Tracer) List(ctx context.Context, prefix, after string) iter.Seq2[storage.Object, error] {
	return func(yield func(storage.Object, error) bool) {
		from := prefix
		if after != "" {
			from += " after " + after
		}
		t.record(storage.OpList, from, nil)
		t.s.List(ctx, prefix, after)(yield)
	}
}

// Delete implements [storage.Store].
func (t *Tracer) Delete(ctx context.Context, key string) error {
	err := t.s.Delete(ctx, key)
	t.record(storage.OpDelete, key, err)
	return err
}
