package storage

import (
	"context"
	"errors"
	"io"
	"iter"
	"sync"
	"time"
)

// Op names one of a Store's methods.
type Op string

// The operations of a Store.
const (
	OpCreate Op = "create"
	OpOpen   Op = "open"
	OpStat   Op = "stat"
	OpList   Op = "list"
	OpDelete Op = "delete"
)

// Event describes one finished operation.
type Event struct {
	Op  Op
	Key string // of a list, the prefix
	// Bytes were read from the reader given to Create, or from the one that Open
	// returned.
	Bytes int64
	// Duration is the whole time: of Open until its reader was closed, of List
	// until the loop over it ended.
	Duration time.Duration
	// Err is the error that the operation returned, or the first one in reading
	// or listing; nil if it succeeded.
	Err error
}

// WithObserver returns s with observe called at the end of every operation,
// in the goroutine that ended it. observe must be safe for concurrent use.
func WithObserver(s Store, observe func(Event)) Store {
	return &observed{s, observe}
}

type observed struct {
	s       Store
	observe func(Event)
}

func (o *observed) report(e Event, start time.Time, err error) {
	e.Duration = time.Since(start)
	e.Err = err
	o.observe(e)
}

func (o *observed) Create(ctx context.Context, key string, r io.Reader) error {
	start, counter := time.Now(), &countingReader{r: r}
	err := o.s.Create(ctx, key, counter)
	o.report(Event{Op: OpCreate, Key: key, Bytes: counter.n}, start, err)
	return err
}

func (o *observed) Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	start := time.Now()
	r, err := o.s.Open(ctx, key, offset, length)
	if err != nil {
		o.report(Event{Op: OpOpen, Key: key}, start, err)
		return nil, err
	}
	return &observedReader{countingReader: countingReader{r: r}, closer: r, store: o, key: key, start: start}, nil
}

func (o *observed) Stat(ctx context.Context, key string) (Object, error) {
	start := time.Now()
	obj, err := o.s.Stat(ctx, key)
	o.report(Event{Op: OpStat, Key: key}, start, err)
	return obj, err
}

func (o *observed) List(ctx context.Context, prefix, after string) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		start := time.Now()
		var failed error
		defer func() { o.report(Event{Op: OpList, Key: prefix}, start, failed) }()
		for obj, err := range o.s.List(ctx, prefix, after) {
			failed = err
			if !yield(obj, err) {
				return
			}
		}
	}
}

func (o *observed) Delete(ctx context.Context, key string) error {
	start := time.Now()
	err := o.s.Delete(ctx, key)
	o.report(Event{Op: OpDelete, Key: key}, start, err)
	return err
}

type countingReader struct {
	r   io.Reader
	n   int64
	err error // the first that is not io.EOF
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += int64(n)
	if err != nil && err != io.EOF && c.err == nil {
		c.err = err
	}
	return n, err
}

type observedReader struct {
	countingReader
	closer io.Closer
	store  *observed
	key    string
	start  time.Time
	once   sync.Once
}

func (r *observedReader) ETag() string { return ETag(r.r) }

func (r *observedReader) Close() error {
	err := r.closer.Close()
	r.once.Do(func() {
		e := Event{Op: OpOpen, Key: r.key, Bytes: r.n}
		r.store.report(e, r.start, errors.Join(r.err, err))
	})
	return err
}
