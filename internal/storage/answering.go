package storage

import (
	"context"
	"errors"
	"io"
	"iter"
	"sync"
	"time"
)

const (
	// grace is the time for an operation to end by itself after its context has: a
	// store that works cleans up then.
	grace = time.Second
	// maxHung is how many operations may hang before no more are begun. Each holds a
	// thread of the operating system.
	maxHung = 8
)

// Answering returns s with operations that end at most a second after their context,
// even if s hangs: a call of a file system whose server or disk does not answer cannot
// be interrupted. Such a call is left behind and its result is dropped. It may still
// have an effect later: an object may exist although its Create has failed. While too
// many calls hang, further ones only wait for that to change, or for their context.
func Answering(s Store) Store {
	return &answering{s, make(chan struct{}, maxHung)}
}

type answering struct {
	s    Store
	hung chan struct{} // holds one for each call that was left behind
}

// hungError says that a store has not answered before ctx ended. It is the error of
// ctx and its cause.
type hungError struct{ cause, err error }

func gaveUp(ctx context.Context) error { return &hungError{context.Cause(ctx), ctx.Err()} }

func (e *hungError) Error() string   { return "the store does not answer: " + e.cause.Error() }
func (e *hungError) Unwrap() []error { return []error{e.cause, e.err} }

// begin waits until there are not too many calls that hang.
func (a *answering) begin(ctx context.Context) error {
	select {
	case a.hung <- struct{}{}:
	default:
		select {
		case a.hung <- struct{}{}:
		case <-ctx.Done():
			return gaveUp(ctx)
		}
	}
	<-a.hung
	return nil
}

// leave leaves a call behind, and calls drop when it ends after all.
func (a *answering) leave(ended func()) {
	go func() {
		a.hung <- struct{}{}
		ended()
		<-a.hung
	}()
}

// ask returns what call returns. Where that is after ctx has ended and too late, drop
// gets the result.
func ask[T any](ctx context.Context, a *answering, call func() (T, error), drop func(T, error)) (T, error) {
	var none T
	if err := a.begin(ctx); err != nil {
		return none, err
	}
	type answer struct {
		value T
		err   error
	}
	answers := make(chan answer, 1)
	go func() {
		value, err := call()
		answers <- answer{value, err}
	}()
	select {
	case got := <-answers:
		return got.value, got.err
	case <-ctx.Done():
	}
	late := time.NewTimer(grace)
	defer late.Stop()
	select {
	case got := <-answers:
		return got.value, got.err
	case <-late.C:
	}
	a.leave(func() {
		got := <-answers
		drop(got.value, got.err)
	})
	return none, gaveUp(ctx)
}

// tell is ask for calls without a result.
func tell(ctx context.Context, a *answering, call func() error) error {
	_, err := ask(ctx, a, func() (struct{}, error) { return struct{}{}, call() }, func(struct{}, error) {})
	return err
}

// Create implements [Store]. It waits for a Read of r that blocks, as the contract says.
func (a *answering) Create(ctx context.Context, key string, r io.Reader) error {
	lent := &lentReader{r: r}
	err := tell(ctx, a, func() error { return a.s.Create(ctx, key, lent) })
	lent.takeBack()
	return err
}

func (a *answering) Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	body, err := ask(ctx, a, func() (io.ReadCloser, error) { return a.s.Open(ctx, key, offset, length) },
		func(late io.ReadCloser, err error) {
			if err == nil {
				_ = late.Close()
			}
		})
	if err != nil {
		return nil, err
	}
	return &answeringReader{ctx: ctx, a: a, body: body}, nil
}

func (a *answering) Stat(ctx context.Context, key string) (Object, error) {
	return ask(ctx, a, func() (Object, error) { return a.s.Stat(ctx, key) }, func(Object, error) {})
}

func (a *answering) Delete(ctx context.Context, key string) error {
	return tell(ctx, a, func() error { return a.s.Delete(ctx, key) })
}

// List implements [Store]. The listing below is one call after the other: it goes on
// when the loop asks for its next object.
func (a *answering) List(ctx context.Context, prefix, after string) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		next, stop := iter.Pull2(a.s.List(ctx, prefix, after))
		type item struct {
			Object
			more bool
		}
		for {
			i, err := ask(ctx, a, func() (item, error) {
				o, err, more := next()
				return item{o, more}, err
			}, func(item, error) { stop() })
			if errors.As(err, new(*hungError)) {
				yield(Object{}, err)
				return // stop would wait for next
			}
			if err != nil || !i.more || !yield(i.Object, nil) {
				_ = tell(ctx, a, func() error { stop(); return nil })
				if err != nil {
					yield(Object{}, err)
				}
				return
			}
		}
	}
}

// answeringReader reads in pieces of its own, because a Read that was left behind may
// still write into them.
type answeringReader struct {
	ctx    context.Context // of the Open, which covers the reading
	a      *answering
	body   io.ReadCloser
	piece  []byte
	failed error // a Read was left behind
}

// maxPiece bounds the memory of a reader.
const maxPiece = 256 << 10

func (r *answeringReader) ETag() string { return ETag(r.body) }

func (r *answeringReader) Read(p []byte) (int, error) {
	if r.failed != nil {
		return 0, r.failed
	}
	if want := min(len(p), maxPiece); len(r.piece) < want {
		r.piece = make([]byte, want)
	}
	piece := r.piece[:min(len(p), maxPiece)]
	n, err := ask(r.ctx, r.a, func() (int, error) { return r.body.Read(piece) },
		func(int, error) { _ = r.body.Close() })
	if errors.As(err, new(*hungError)) {
		r.failed = err
		return 0, err
	}
	return copy(p, piece[:n]), err
}

// Close implements [io.Closer]. The end of a Read that was left behind closes too.
func (r *answeringReader) Close() error {
	if r.failed != nil {
		return nil
	}
	return tell(r.ctx, r.a, r.body.Close)
}

// lentReader is a reader that its owner can take back at any time.
type lentReader struct {
	mu sync.Mutex
	r  io.Reader // nil when it was taken back
}

func (l *lentReader) Read(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.r == nil {
		return 0, errors.New("the upload was given up")
	}
	return l.r.Read(p)
}

func (l *lentReader) takeBack() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.r = nil
}
