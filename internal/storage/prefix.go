package storage

import (
	"context"
	"io"
	"iter"
	"strings"
)

// WithPrefix returns the folder prefix of s as a Store of its own: its keys
// are those of s below prefix, without it. Slashes around prefix make no
// difference; an empty prefix is s itself.
func WithPrefix(s Store, prefix string) Store {
	prefix = strings.Trim(prefix, "/")
	if prefix == "" {
		return s
	}
	return &prefixed{s, prefix + "/"}
}

type prefixed struct {
	s      Store
	prefix string
}

// full refuses a bad key itself: joined with the prefix an empty one would
// name the folder.
func (p *prefixed) full(key string) (string, error) {
	if err := CheckKey(key); err != nil {
		return "", err
	}
	return p.prefix + key, nil
}

func (p *prefixed) Create(ctx context.Context, key string, r io.Reader) error {
	full, err := p.full(key)
	if err != nil {
		return err
	}
	return p.s.Create(ctx, full, r)
}

func (p *prefixed) Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	full, err := p.full(key)
	if err != nil {
		return nil, err
	}
	return p.s.Open(ctx, full, offset, length)
}

func (p *prefixed) Stat(ctx context.Context, key string) (Object, error) {
	full, err := p.full(key)
	if err != nil {
		return Object{}, err
	}
	o, err := p.s.Stat(ctx, full)
	o.Key = strings.TrimPrefix(o.Key, p.prefix)
	return o, err
}

func (p *prefixed) List(ctx context.Context, prefix, after string) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		for o, err := range p.s.List(ctx, p.prefix+prefix, p.prefix+after) {
			o.Key = strings.TrimPrefix(o.Key, p.prefix)
			if !yield(o, err) {
				return
			}
		}
	}
}

func (p *prefixed) Delete(ctx context.Context, key string) error {
	full, err := p.full(key)
	if err != nil {
		return err
	}
	return p.s.Delete(ctx, full)
}
