package storagetest_test

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"slices"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/storage"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest/mem"
)

var errFault = errors.New("fault")

// scenario runs one operation of each kind and returns their errors.
func scenario(ctx context.Context, s storage.Store) []error {
	errs := []error{s.Create(ctx, "key", strings.NewReader("value"))}
	r, err := s.Open(ctx, "key", 0, -1)
	if err == nil {
		_, err = io.ReadAll(r)
		err = errors.Join(err, r.Close())
	}
	errs = append(errs, err)
	_, err = s.Stat(ctx, "key")
	errs = append(errs, err)
	err = nil
	for _, e := range s.List(ctx, "", "") {
		err = e
	}
	return append(errs, err, s.Delete(ctx, "key"))
}

func TestFailAt(t *testing.T) {
	for n := range 5 {
		for _, when := range []storagetest.When{storagetest.Before, storagetest.After, storagetest.Crash} {
			s := mem.New()
			f := storagetest.FailAt(s, n, when, errFault)
			for i, err := range scenario(t.Context(), f) {
				fault := i == n || i > n && when == storagetest.Crash
				if errors.Is(err, errFault) != fault {
					t.Errorf("fault %d (%v): operation %d returns %v", n, when, i, err)
				}
			}
			if f.Ops() != 5 || !f.Fired() {
				t.Errorf("fault %d: %d operations, fired %v", n, f.Ops(), f.Fired())
			}
			// Whether the operation was done in spite of the error.
			_, err := s.Stat(t.Context(), "key")
			there := !errors.Is(err, fs.ErrNotExist)
			want := n == 4 && when == storagetest.Before || n > 0 && when == storagetest.Crash
			if there != want {
				t.Errorf("fault %d (%v): object is there: %v", n, when, there)
			}
		}
	}
	f := storagetest.FailAt(mem.New(), 5, storagetest.Before, errFault)
	if errors.Join(scenario(t.Context(), f)...) != nil || f.Fired() {
		t.Error("a fault that is never reached")
	}
}

func TestTrace(t *testing.T) {
	s := storagetest.Trace(mem.New())
	if err := errors.Join(scenario(t.Context(), s)...); err != nil {
		t.Fatal(err)
	}
	_, _ = s.Stat(t.Context(), "missing")
	want := []string{"create key", "open key", "stat key", "list ", "delete key", "stat missing failed"}
	if !slices.Equal(s.Lines(), want) {
		t.Fatalf("got %q, want %q", s.Lines(), want)
	}
	if s.String() != strings.Join(want, "\n")+"\n" {
		t.Fatalf("got %q", s.String())
	}
}

// TestWrappers: the wrappers of a store keep the contract too.
func TestWrappers(t *testing.T) {
	storagetest.Run(t, func(*testing.T) storage.Store {
		s := storage.WithObserver(mem.New(), func(storage.Event) {})
		return storagetest.FailAt(storagetest.Trace(s), 1<<30, storagetest.Before, errFault)
	})
}
