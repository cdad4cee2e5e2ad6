package storage_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"

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
