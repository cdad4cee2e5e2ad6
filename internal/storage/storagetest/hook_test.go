package storagetest_test

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/storage"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest/mem"
)

// TestHook: both functions see each operation, and their errors are returned
// without it and in spite of it.
func TestHook(t *testing.T) {
	ops := []storage.Op{storage.OpCreate, storage.OpOpen, storage.OpStat, storage.OpList, storage.OpDelete}
	for _, failing := range append(ops, "none") {
		for _, when := range []string{"before", "after"} {
			var seen []string
			note := func(moment string) func(context.Context, storage.Op, string) error {
				return func(_ context.Context, op storage.Op, key string) error {
					seen = append(seen, moment+" "+string(op)+" "+key)
					if op == failing && moment == when {
						return errFault
					}
					return nil
				}
			}
			s := &storagetest.Hook{Store: mem.New(), Before: note("before"), After: note("after")}
			errs := scenario(t.Context(), s)
			var want []string
			for i, op := range ops {
				key := "key"
				if op == storage.OpList {
					key = ""
				}
				want = append(want, "before "+string(op)+" "+key)
				if op != failing || when != "before" {
					want = append(want, "after "+string(op)+" "+key)
				}
				missing := failing == storage.OpCreate && when == "before" &&
					(op == storage.OpOpen || op == storage.OpStat)
				if errors.Is(errs[i], errFault) != (op == failing) || (errs[i] != nil) != (op == failing || missing) {
					t.Errorf("%s fails %s it: %s returns %v", failing, when, op, errs[i])
				}
			}
			if !slices.Equal(seen, want) {
				t.Errorf("%s fails %s it: seen %q, want %q", failing, when, seen, want)
			}
		}
	}
}

// TestHook_Ends: After is called once, also where a caller stops early.
func TestHook_Ends(t *testing.T) {
	var n int
	s := &storagetest.Hook{Store: mem.New(), After: func(context.Context, storage.Op, string) error {
		n++
		return nil
	}}
	for _, key := range []string{"a", "b"} {
		if err := s.Create(t.Context(), key, strings.NewReader("value")); err != nil {
			t.Fatal(err)
		}
	}
	n = 0
	for range s.List(t.Context(), "", "") {
		break
	}
	if n != 1 {
		t.Errorf("after a list that was stopped: %d calls", n)
	}
	for _, read := range []int{0, 3, 10} {
		n = 0
		r, err := s.Open(t.Context(), "a", 0, -1)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.ReadFull(r, make([]byte, read))
		if err := errors.Join(r.Close(), r.Close()); err != nil || n != 1 {
			t.Errorf("after %d bytes: %d calls, error %v", read, n, err)
		}
	}
	n = 0
	if _, err := s.Open(t.Context(), "missing", 0, -1); err == nil || n != 1 {
		t.Errorf("after an open that failed: %d calls, error %v", n, err)
	}
}

// tagged is a reader with an ETag of its own.
type tagged struct {
	io.Reader
	etag string
}

func (r tagged) ETag() string { return r.etag }

// TestHook_Bytes: hooks change the bytes of uploads and downloads, and compose.
func TestHook_Bytes(t *testing.T) {
	m := mem.New()
	s := storage.Store(&storagetest.Hook{
		Store: m,
		Upload: func(_ context.Context, key string, r io.Reader) io.Reader {
			return io.MultiReader(strings.NewReader(key+"="), r)
		},
		Download: func(_ context.Context, _ string, offset int64, r io.Reader) io.Reader {
			if offset == 0 {
				return r
			}
			return tagged{r, "another"}
		},
	})
	s = &storagetest.Hook{Store: s, Download: func(_ context.Context, _ string, _ int64, r io.Reader) io.Reader {
		return storagetest.CutAfter(6, r, func() error { return errFault })
	}}
	if err := s.Create(t.Context(), "key", strings.NewReader("value")); err != nil {
		t.Fatal(err)
	}
	o, err := s.Stat(t.Context(), "key")
	if err != nil {
		t.Fatal(err)
	}
	for offset, want := range map[int64]struct{ text, etag string }{0: {"key=va", o.ETag}, 4: {"value", "another"}} {
		r, err := s.Open(t.Context(), "key", offset, -1)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := io.ReadAll(r)
		if string(raw) != want.text || !errors.Is(err, errFault) || storage.ETag(r) != want.etag {
			t.Errorf("from %d on: %q, ETag %s, error %v", offset, raw, storage.ETag(r), err)
		}
		if err := r.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
