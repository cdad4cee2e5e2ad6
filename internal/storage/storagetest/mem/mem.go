// Package mem is a Store in memory, for tests.
package mem

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/etcd-backupd/backupd/internal/storage"
)

// Store implements [storage.Store]. Its zero value is empty and ready.
type Store struct {
	mu      sync.RWMutex
	objects map[string]object // guarded by mu
	serial  int64             // guarded by mu; makes the ETags
}

type object struct {
	storage.Object
	bytes []byte // never changed
}

var _ storage.Store = (*Store)(nil)

// New returns an empty store.
func New() *Store { return &Store{} }

// Create implements [storage.Store].
func (s *Store) Create(ctx context.Context, key string, r io.Reader) error {
	if err := storage.CheckKey(key); err != nil {
		return err
	}
	raw, err := io.ReadAll(storage.ReaderContext(ctx, r))
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return fmt.Errorf("create %s: %w", key, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ok := s.objects[key]; ok {
		return fmt.Errorf("create %s: %w", key, fs.ErrExist)
	}
	if s.objects == nil {
		s.objects = make(map[string]object)
	}
	s.serial++
	s.objects[key] = object{
		Object: storage.Object{
			Key: key, Size: int64(len(raw)), ModTime: time.Now(), ETag: strconv.FormatInt(s.serial, 10),
		},
		bytes: raw,
	}
	return nil
}

// Open implements [storage.Store].
func (s *Store) Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	o, err := s.get(ctx, key)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", key, err)
	}
	start, n, err := storage.Range(o.Size, offset, length)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", key, err)
	}
	return &reader{storage.ReaderContext(ctx, bytes.NewReader(o.bytes[start:start+n])), o.ETag}, nil
}

// Stat implements [storage.Store].
func (s *Store) Stat(ctx context.Context, key string) (storage.Object, error) {
	o, err := s.get(ctx, key)
	if err != nil {
		return storage.Object{}, fmt.Errorf("stat %s: %w", key, err)
	}
	return o.Object, nil
}

func (s *Store) get(ctx context.Context, key string) (object, error) {
	if err := ctx.Err(); err != nil {
		return object{}, err
	}
	if err := storage.CheckKey(key); err != nil {
		return object{}, err
	}
	s.mu.RLock()
	defer s.mu.RUnlock()
	o, ok := s.objects[key]
	if !ok {
		return object{}, fs.ErrNotExist
	}
	return o, nil
}

// List implements [storage.Store]. It yields what is there when it begins.
func (s *Store) List(ctx context.Context, prefix, after string) iter.Seq2[storage.Object, error] {
	return func(yield func(storage.Object, error) bool) {
		s.mu.RLock()
		all := maps.Clone(s.objects)
		s.mu.RUnlock()
		for _, key := range slices.Sorted(maps.Keys(all)) {
			if !strings.HasPrefix(key, prefix) || key <= after {
				continue
			}
			if err := ctx.Err(); err != nil {
				yield(storage.Object{}, fmt.Errorf("list %s: %w", prefix, err))
				return
			}
			if !yield(all[key].Object, nil) {
				return
			}
		}
		if err := ctx.Err(); err != nil {
			yield(storage.Object{}, fmt.Errorf("list %s: %w", prefix, err))
		}
	}
}

// Delete implements [storage.Store].
func (s *Store) Delete(ctx context.Context, key string) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("delete %s: %w", key, err)
	}
	if err := storage.CheckKey(key); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.objects, key)
	return nil
}

type reader struct {
	io.Reader
	etag string
}

func (r *reader) ETag() string { return r.etag }
func (r *reader) Close() error { return nil }
