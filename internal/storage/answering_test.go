package storage_test

import (
	"context"
	"errors"
	"io"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/etcd-backupd/backupd/internal/storage"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest/mem"
)

func TestAnswering_Store(t *testing.T) {
	storagetest.Run(t, func(*testing.T) storage.Store { return storage.Answering(mem.New()) })
}

// frozen is a store that hangs, whatever its context says, until it is thawed.
type frozen struct {
	storagetest.Hook
	on    atomic.Bool
	calls atomic.Int64 // that were begun while it was frozen
	thaw  chan struct{}
}

func newFrozen() *frozen {
	f := &frozen{thaw: make(chan struct{})}
	f.Store = mem.New()
	f.Before = func(context.Context, storage.Op, string) error { f.wait(); return nil }
	return f
}

func (f *frozen) wait() {
	if f.on.Load() {
		f.calls.Add(1)
		<-f.thaw
	}
}

var errEnough = errors.New("enough")

// soon is a context that ends in a minute, for a reason.
func soon(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, errEnough)
	t.Cleanup(cancel)
	return ctx
}

// operations are all that a Store can do.
func operations(t *testing.T, s storage.Store) map[string]func() error {
	return map[string]func() error{
		"create": func() error { return s.Create(soon(t), "b", strings.NewReader("b")) },
		"open":   func() error { _, err := s.Open(soon(t), "a", 0, -1); return err },
		"stat":   func() error { _, err := s.Stat(soon(t), "a"); return err },
		"delete": func() error { return s.Delete(soon(t), "c") },
		"list": func() error {
			for _, err := range s.List(soon(t), "", "") {
				return err
			}
			return nil
		},
	}
}

// TestAnswering: each operation on a store that hangs ends when its context has ended, and
// says why.
func TestAnswering(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFrozen()
		s := storage.Answering(f)
		if err := s.Create(t.Context(), "a", strings.NewReader("a")); err != nil {
			t.Fatal(err)
		}
		f.on.Store(true)
		for name, do := range operations(t, s) {
			start := time.Now()
			err := do()
			if !errors.Is(err, errEnough) || !errors.Is(err, context.DeadlineExceeded) ||
				err.Error() != "the store does not answer: enough" {
				t.Errorf("%s: got %v", name, err)
			}
			if took := time.Since(start); took > time.Minute+time.Second {
				t.Errorf("%s: it took %v", name, took)
			}
		}
		f.on.Store(false)
		close(f.thaw)
		synctest.Wait()
		for name, do := range operations(t, s) {
			if err := do(); err != nil {
				t.Errorf("%s, thawed: got %v", name, err)
			}
		}
	})
}

// TestAnswering_Bound: on a store that hangs for days only so many calls pile up, and it is
// used again when it answers.
func TestAnswering_Bound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFrozen()
		s := storage.Answering(f)
		f.on.Store(true)
		for range 100 {
			if _, err := s.Stat(soon(t), "a"); !errors.Is(err, errEnough) {
				t.Fatalf("got %v", err)
			}
		}
		if n := f.calls.Load(); n > 10 {
			t.Errorf("%d calls hang", n)
		}
		waiting := make(chan error)
		go func() { waiting <- s.Delete(soon(t), "a") }()
		f.on.Store(false)
		close(f.thaw)
		if err := <-waiting; err != nil {
			t.Errorf("got %v", err)
		}
	})
}

// TestAnswering_Create: nothing reads the caller's reader when Create has given up.
func TestAnswering_Create(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFrozen()
		f.on.Store(true)
		given := false // the race detector sees a Read after this
		err := storage.Answering(f).Create(soon(t), "a", readerFunc(func([]byte) (int, error) {
			if given {
				t.Error("read after the end")
			}
			return 0, io.EOF
		}))
		given = true
		if !errors.Is(err, errEnough) {
			t.Errorf("got %v", err)
		}
		close(f.thaw)
		synctest.Wait()
		if _, err := f.Stat(t.Context(), "a"); err == nil {
			t.Error("an object was made of nothing")
		}
	})
}

// body is an object that hangs like its store.
type body struct {
	f      *frozen
	closed atomic.Int64
}

func (b *body) Read(p []byte) (int, error) {
	b.f.wait()
	clear(p)
	return len(p), nil
}

func (b *body) Close() error { b.closed.Add(1); return nil }

type bodies struct {
	*frozen
	body *body
}

func (b *bodies) Open(context.Context, string, int64, int64) (io.ReadCloser, error) {
	b.wait()
	return b.body, nil
}

// TestAnswering_Read: a Read that hangs ends, too, and what was opened too late is closed.
func TestAnswering_Read(t *testing.T) {
	for _, late := range []bool{true, false} {
		synctest.Test(t, func(t *testing.T) {
			f := newFrozen()
			b := &body{f: f}
			f.on.Store(late)
			r, err := storage.Answering(&bodies{f, b}).Open(soon(t), "a", 0, -1)
			if late != errors.Is(err, errEnough) {
				t.Fatalf("open: got %v", err)
			}
			if !late {
				f.on.Store(true)
				p := make([]byte, 100)
				for range 2 {
					if n, err := r.Read(p); n != 0 || !errors.Is(err, errEnough) {
						t.Errorf("read: got %d, %v", n, err)
					}
				}
				p[0] = 1 // the race detector sees a late Read
				if err := r.Close(); err != nil {
					t.Errorf("close: got %v", err)
				}
			}
			if n := b.closed.Load(); n != 0 {
				t.Errorf("closed %d times in the call that hangs", n)
			}
			close(f.thaw)
			synctest.Wait()
			if n := b.closed.Load(); n != 1 {
				t.Errorf("closed %d times", n)
			}
		})
	}
}
