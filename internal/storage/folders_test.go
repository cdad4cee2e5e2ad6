package storage_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"slices"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/storage"
	"github.com/etcd-backupd/backupd/internal/storage/file"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest/mem"
)

// folders returns the first keys of all folders.
func folders(t *testing.T, s storage.Store, prefix string) []string {
	t.Helper()
	var out []string
	for f, err := range storage.Folders(t.Context(), s, prefix) {
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(f.First.Key, prefix+f.Name+"/") {
			t.Errorf("%s is the first object of %s", f.First.Key, f.Name)
		}
		out = append(out, f.First.Key)
	}
	return out
}

func TestFolders(t *testing.T) {
	for name, s := range map[string]storage.Store{"Mem": mem.New(), "File": file.New(t.TempDir())} {
		t.Run(name, func(t *testing.T) {
			// One name begins another, and objects are between the folders.
			for _, key := range []string{
				"a-b/1", "a-b/2", "a.b/x/1", "a/1", "a/2", "a/b/1", "a/c/1", "a0/1", "a1", "aa/1",
				"backupd.json", "c0", "c/1", "c0x/1", "prod0", "prod/1", "prod00/1", "ä/1", "日本/1",
			} {
				if err := s.Create(t.Context(), key, strings.NewReader("x")); err != nil {
					t.Fatal(err)
				}
			}
			want := []string{
				"a-b/1", "a.b/x/1", "a/1", "a0/1", "aa/1", "c/1", "c0x/1", "prod/1", "prod00/1", "ä/1", "日本/1",
			}
			if got := folders(t, s, ""); !slices.Equal(got, want) {
				t.Errorf("got %q, want %q", got, want)
			}
			if got := folders(t, s, "a/"); !slices.Equal(got, []string{"a/b/1", "a/c/1"}) {
				t.Errorf("in a/: %q", got)
			}
			if got := folders(t, s, "b/"); len(got) != 0 {
				t.Errorf("in b/: %q", got)
			}
		})
	}
}

// TestFolders_Cost: one listing for each folder and one that finds none, and
// one object looked at in each.
func TestFolders_Cost(t *testing.T) {
	m := mem.New()
	for i := range 5 {
		for j := range 50 {
			if err := m.Create(t.Context(), fmt.Sprintf("f%d/%d", i, j), strings.NewReader("x")); err != nil {
				t.Fatal(err)
			}
		}
	}
	trace := storagetest.Trace(m)
	if got := folders(t, trace, ""); len(got) != 5 {
		t.Errorf("got %q", got)
	}
	want := []string{
		"list ", "list  after f00", "list  after f10", "list  after f20", "list  after f30", "list  after f40",
	}
	if got := trace.Lines(); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestFolders_Stops(t *testing.T) {
	m := mem.New()
	for _, key := range []string{"a/1", "b/1", "c/1"} {
		if err := m.Create(t.Context(), key, strings.NewReader("x")); err != nil {
			t.Fatal(err)
		}
	}
	for n := range 4 {
		var got []string
		var last error
		faulty := storagetest.FailAt(m, n, storagetest.Before, fs.ErrPermission)
		for f, err := range storage.Folders(t.Context(), faulty, "") {
			if last != nil {
				t.Fatalf("it goes on after %v", last)
			}
			if last = err; err == nil {
				got = append(got, f.Name)
			}
		}
		if !errors.Is(last, fs.ErrPermission) || len(got) != n {
			t.Errorf("fault %d: got %q, %v", n, got, last)
		}
	}
	trace := storagetest.Trace(m)
	for range storage.Folders(t.Context(), trace, "") {
		break
	}
	if got := trace.Lines(); len(got) != 1 {
		t.Errorf("a loop that ended early: %q", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, err := range storage.Folders(ctx, m, "") {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	}
}

// service is a store whose listings come in an order of its own. Like S3 it begins them by
// the bytes, and it reports an order that it sees to be wrong.
type service struct {
	storage.Store
	key func(string) string // by which it sorts
}

func (s *service) CheckOrder(context.Context, string) error { return nil }

func (s *service) List(ctx context.Context, prefix, after string) iter.Seq2[storage.Object, error] {
	return func(yield func(storage.Object, error) bool) {
		var all []storage.Object
		for o, err := range s.Store.List(ctx, prefix, after) {
			if err != nil {
				yield(o, err)
				return
			}
			all = append(all, o)
		}
		slices.SortFunc(all, func(a, b storage.Object) int { return strings.Compare(s.key(a.Key), s.key(b.Key)) })
		previous := ""
		for _, o := range all {
			if o.Key < previous {
				yield(storage.Object{}, storage.Unordered(previous, o.Key))
				return
			}
			if previous = o.Key; !yield(o, nil) {
				return
			}
		}
	}
}

// TestFolders_Unordered: no folder vanishes from a service that lists in the order of a tree
// or without regard to case. A folder that is longer than what is looked at is no excuse for
// a tree.
func TestFolders_Unordered(t *testing.T) {
	tree := func(key string) string { return strings.ReplaceAll(key, "/", "\x00") }
	for name, c := range map[string]struct {
		key    func(string) string
		names  []string
		first  int // objects in the first folder
		wanted bool
	}{
		"Tree":      {tree, []string{"prod", "prod-eu"}, 3, false},
		"Tree/Long": {tree, []string{"prod", "prod.eu"}, 1200, false},
		"NoCase":    {strings.ToLower, []string{"a", "B"}, 3, false},
		"Bytes":     {strings.Clone, []string{"prod", "prod-eu"}, 1200, true},
	} {
		t.Run(name, func(t *testing.T) {
			m := mem.New()
			for n, folder := range c.names {
				for i := range []int{c.first, 2}[n] {
					if err := m.Create(t.Context(), fmt.Sprintf("%s/%04d", folder, i), strings.NewReader("x")); err != nil {
						t.Fatal(err)
					}
				}
			}
			var got []string
			var last error
			for f, err := range storage.Folders(t.Context(), &service{m, c.key}, "") {
				if last = err; err == nil {
					got = append(got, f.Name)
				}
			}
			if c.wanted && (last != nil || len(got) != len(c.names)) || !c.wanted && !errors.Is(last, backup.ErrUnordered) {
				t.Errorf("got %q, %v", got, last)
			}
		})
	}
}
