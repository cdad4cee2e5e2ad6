package storage

import (
	"context"
	"io"
	"iter"
	"sync"
)

// Later returns a store that open opens when it is first used. As long as that fails,
// each operation fails with its error, and the next one tries it again.
func Later(open func(context.Context) (Store, error)) Store { return &later{open: open} }

type later struct {
	open func(context.Context) (Store, error)

	mu sync.Mutex
	s  Store // nil until open has succeeded
}

func (l *later) store(ctx context.Context) (Store, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.s != nil {
		return l.s, nil
	}
	s, err := l.open(ctx)
	if err == nil {
		l.s = s
	}
	return s, err
}

func (l *later) opened() Store {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.s
}

func (l *later) Create(ctx context.Context, key string, r io.Reader) error {
	s, err := l.store(ctx)
	if err != nil {
		return err
	}
	return s.Create(ctx, key, r)
}

func (l *later) Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	s, err := l.store(ctx)
	if err != nil {
		return nil, err
	}
	return s.Open(ctx, key, offset, length)
}

func (l *later) Stat(ctx context.Context, key string) (Object, error) {
	s, err := l.store(ctx)
	if err != nil {
		return Object{}, err
	}
	return s.Stat(ctx, key)
}

func (l *later) List(ctx context.Context, prefix, after string) iter.Seq2[Object, error] {
	s, err := l.store(ctx)
	if err != nil {
		return func(yield func(Object, error) bool) { yield(Object{}, err) }
	}
	return s.List(ctx, prefix, after)
}

func (l *later) Delete(ctx context.Context, key string) error {
	s, err := l.store(ctx)
	if err != nil {
		return err
	}
	return s.Delete(ctx, key)
}
