package storage_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/storage"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest/mem"
)

func content(n int) []byte {
	raw := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(raw) // never fails
	return raw
}

// stored returns a store with the object "key".
func stored(t *testing.T, raw []byte) (*mem.Store, storage.Object) {
	t.Helper()
	s := mem.New()
	if err := s.Create(t.Context(), "key", bytes.NewReader(raw)); err != nil {
		t.Fatal(err)
	}
	o, err := s.Stat(t.Context(), "key")
	if err != nil {
		t.Fatal(err)
	}
	return s, o
}

// flaky returns s with readers that go through wrap, and the number of opens.
func flaky(s storage.Store, wrap func(n int64, r io.Reader) io.Reader) (storage.Store, *atomic.Int64) {
	var n atomic.Int64
	return &storagetest.Hook{Store: s, Download: func(_ context.Context, _ string, _ int64, r io.Reader) io.Reader {
		return wrap(n.Add(1)-1, r)
	}}, &n
}

// interrupting returns s with readers that yield a few thousand bytes each. Up to
// three openings in a row yield nothing.
func interrupting(s storage.Store) storage.Store {
	var mu sync.Mutex
	opens := map[int64]int64{} // by offset; guarded by mu
	h := &storagetest.Hook{Store: s}
	h.Download = func(_ context.Context, _ string, offset int64, r io.Reader) io.Reader {
		mu.Lock()
		defer mu.Unlock()
		n, rhythm := opens[offset], offset/1000%4
		opens[offset]++
		if n < rhythm {
			return cut(0, r, errCut, storage.ETag(r))
		}
		return cut(1000*(rhythm+1), r, errCut, storage.ETag(r))
	}
	return h
}

var errCut = errors.New("connection cut")

// tagged is a reader with an ETag of its own.
type tagged struct {
	io.Reader
	etag string
}

func (r tagged) ETag() string { return r.etag }

// cut returns n bytes of r and then err, and has an ETag of its own.
func cut(n int64, r io.Reader, err error, etag string) io.Reader {
	return tagged{storagetest.CutAfter(n, r, func() error { return err }), etag}
}

// opener is a way to read a whole object.
type opener func(context.Context, storage.Store, storage.Object) io.ReadCloser

// both runs a test on a download of many ranges and on the reader of one.
func both(t *testing.T, run func(t *testing.T, open opener)) {
	t.Run("Resuming", func(t *testing.T) { run(t, storage.Resuming) })
	t.Run("Download", func(t *testing.T) {
		run(t, func(ctx context.Context, s storage.Store, o storage.Object) io.ReadCloser {
			return storage.DownloadParts(ctx, s, o, 10_000, 3)
		})
	})
}

func TestRead_OK(t *testing.T) {
	both(t, func(t *testing.T, open opener) {
		for _, n := range []int{0, 1, 9_999, 10_000, 10_001, 30_000, 100_001} {
			want := content(n)
			s, o := stored(t, want)
			r := open(t.Context(), s, o)
			// Odd sizes of reads cross the boundaries of parts.
			got, err := io.ReadAll(onlyReader{r, 777})
			if err != nil || !bytes.Equal(got, want) {
				t.Fatalf("%d bytes: read %d, error %v", n, len(got), err)
			}
			if n, err := r.Read(make([]byte, 1)); n != 0 || err != io.EOF {
				t.Fatalf("after the end: %d, %v", n, err)
			}
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
			if _, err := r.Read(make([]byte, 1)); err == nil {
				t.Fatal("read after close")
			}
		}
	})
}

type onlyReader struct {
	r   io.Reader
	max int
}

func (r onlyReader) Read(p []byte) (int, error) { return r.r.Read(p[:min(len(p), r.max)]) }

// TestRead_Resumes: the pauses pass in a bubble, where time costs nothing.
func TestRead_Resumes(t *testing.T) {
	both(t, func(t *testing.T, open opener) {
		synctest.Test(t, func(t *testing.T) {
			want := content(200_000)
			s, o := stored(t, want)
			f := interrupting(s)
			r := open(t.Context(), f, o)
			got, err := io.ReadAll(r)
			if err != nil || !bytes.Equal(got, want) {
				t.Fatalf("read %d bytes, error %v", len(got), err)
			}
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
		})
	})
}

func TestRead_GivesUp(t *testing.T) {
	both(t, func(t *testing.T, open opener) {
		synctest.Test(t, func(t *testing.T) {
			s, o := stored(t, content(100))
			f, opens := flaky(s, func(_ int64, r io.Reader) io.Reader { return cut(0, r, errCut, "") })
			r := open(t.Context(), f, o)
			for range 2 {
				if _, err := io.ReadAll(r); !errors.Is(err, errCut) || !strings.Contains(err.Error(), "no progress") {
					t.Fatalf("got error %v", err)
				}
			}
			if n := opens.Load(); n != 5 {
				t.Fatalf("%d attempts", n)
			}
			_ = r.Close()
		})
	})
}

// TestRead_Final: errors after which another attempt is of no use.
func TestRead_Final(t *testing.T) {
	both(t, func(t *testing.T, open opener) {
		for name, final := range map[string]error{
			"Permission": fs.ErrPermission, "NotExist": fs.ErrNotExist, "Corrupt": backup.ErrCorrupt,
		} {
			t.Run(name, func(t *testing.T) {
				s, o := stored(t, content(5000))
				f, opens := flaky(s, func(_ int64, r io.Reader) io.Reader { return cut(1000, r, final, "") })
				r := open(t.Context(), f, o)
				got, err := io.ReadAll(r)
				if !errors.Is(err, final) || opens.Load() != 1 || len(got) > 1000 {
					t.Fatalf("read %d bytes in %d attempts, error %v", len(got), opens.Load(), err)
				}
				_ = r.Close()
			})
		}
		t.Run("Open", func(t *testing.T) {
			s, o := stored(t, content(5000))
			r := open(t.Context(), storagetest.FailAt(s, 0, storagetest.Before, errCut), o)
			if _, err := io.ReadAll(r); !errors.Is(err, errCut) {
				t.Fatalf("got error %v", err)
			}
			_ = r.Close()
		})
		t.Run("Truncated", func(t *testing.T) {
			s, o := stored(t, content(25_000))
			o.Size += 10_000
			r := open(t.Context(), s, o)
			got, err := io.ReadAll(r)
			if !errors.Is(err, backup.ErrCorrupt) || !errors.Is(err, io.ErrUnexpectedEOF) || len(got) > 25_000 {
				t.Fatalf("read %d bytes, error %v", len(got), err)
			}
			_ = r.Close()
		})
		t.Run("Replaced", func(t *testing.T) {
			s, o := stored(t, content(25_000))
			f, _ := flaky(s, func(n int64, r io.Reader) io.Reader {
				etag := o.ETag
				if n > 0 {
					etag = "another"
				}
				return cut(1000, r, errCut, etag)
			})
			r := open(t.Context(), f, o)
			got, err := io.ReadAll(r)
			if err == nil || !strings.Contains(err.Error(), "replaced") || len(got) > 1000 {
				t.Fatalf("read %d bytes, error %v", len(got), err)
			}
			_ = r.Close()
		})
	})
}

func TestRead_Cancelled(t *testing.T) {
	both(t, func(t *testing.T, open opener) {
		s, o := stored(t, content(500_000))
		ctx, cancel := context.WithCancel(t.Context())
		r := open(ctx, s, o)
		if _, err := io.ReadFull(r, make([]byte, 100)); err != nil {
			t.Fatal(err)
		}
		cancel()
		if _, err := io.ReadAll(r); !errors.Is(err, context.Canceled) {
			t.Fatalf("got error %v", err)
		}
		_ = r.Close()
	})
}

// TestDownload_Bounded: never more than Concurrency ranges, also when nobody
// reads, and really that many.
func TestDownload_Bounded(t *testing.T) {
	s, o := stored(t, content(100_000))
	var mu sync.Mutex
	now, most := 0, 0
	gate := make(chan struct{})
	f, opens := flaky(s, func(_ int64, r io.Reader) io.Reader {
		mu.Lock()
		defer mu.Unlock()
		now++
		if most = max(most, now); now == 3 {
			close(gate)
		}
		return readerFunc(func(p []byte) (int, error) {
			<-gate
			return r.Read(p)
		})
	})
	f = &storagetest.Hook{Store: f, After: func(context.Context, storage.Op, string) error {
		mu.Lock()
		defer mu.Unlock()
		now--
		return nil
	}}
	r := storage.DownloadParts(t.Context(), f, o, 1000, 3)
	<-gate // closed once three are in flight, which they are before anything is read
	if opens.Load() != 3 {
		t.Fatalf("%d ranges are fetched ahead", opens.Load())
	}
	_ = r.Close()
	if most != 3 {
		t.Fatalf("%d ranges at once", most)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// TestDownload_CloseWaits: when Close has returned nothing is read any more.
func TestDownload_CloseWaits(t *testing.T) {
	s, o := stored(t, content(100_000))
	reading := make(chan struct{}, 10)
	var open atomic.Int64
	// Readers that yield nothing until their context ends, and are slow even then.
	h := &storagetest.Hook{
		Store:  s,
		Before: func(context.Context, storage.Op, string) error { open.Add(1); return nil },
		After:  func(context.Context, storage.Op, string) error { open.Add(-1); return nil },
		Download: func(ctx context.Context, _ string, _ int64, _ io.Reader) io.Reader {
			return readerFunc(func([]byte) (int, error) {
				reading <- struct{}{}
				<-ctx.Done()
				for range 1000 {
					runtime.Gosched()
				}
				return 0, ctx.Err()
			})
		},
	}
	r := storage.DownloadParts(t.Context(), h, o, 1000, 3)
	for range 3 {
		<-reading
	}
	if err := r.Close(); err != nil {
		t.Fatal(err)
	}
	if n := open.Load(); n != 0 {
		t.Fatalf("%d ranges are still open", n)
	}
}

// TestDownload_CloseEarly: goleak, after the tests, reports whether a goroutine
// is left.
func TestDownload_CloseEarly(t *testing.T) {
	s, o := stored(t, content(1_000_000))
	for read := range 50 {
		r := storage.DownloadParts(t.Context(), s, o, 1000, 4)
		if _, err := io.ReadFull(r, make([]byte, read*100)); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := r.Close(); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := io.ReadAll(r); !errors.Is(err, fs.ErrClosed) {
			t.Fatalf("got error %v", err)
		}
	}
}
