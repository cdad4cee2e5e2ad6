package file

import (
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestList_Folders: a listing reads the folders that can hold what it yields,
// and no other.
func TestList_Folders(t *testing.T) {
	s := New(t.TempDir())
	for _, key := range []string{"a/1", "a-b/1", "b/a/1", "b/c/1", "b/d/1", "c/1"} {
		if err := s.Create(t.Context(), key, strings.NewReader("x")); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		prefix, after string
		want          []string
	}{
		{"", "", []string{"a", "a-b", "b", "b/a", "b/c", "b/d", "c"}},
		{"", "a-b/1", []string{"a", "a-b", "b", "b/a", "b/c", "b/d", "c"}},
		{"", "a/1", []string{"a", "b", "b/a", "b/c", "b/d", "c"}},
		{"", "a0", []string{"b", "b/a", "b/c", "b/d", "c"}},
		{"", "b/c", []string{"b", "b/c", "b/d", "c"}},
		{"b/", "b/c/1", []string{"b/c", "b/d"}},
		{"b/", "b/c0", []string{"b/d"}},
		{"b/", "c", nil},
	} {
		if got := foldersRead(t, s, tt.prefix, tt.after); !slices.Equal(got, tt.want) {
			t.Errorf("list %q after %q reads %q, want %q", tt.prefix, tt.after, got, tt.want)
		}
	}
}

// foldersRead returns the folders below prefix that a listing would read.
func foldersRead(t *testing.T, s *Store, prefix, after string) []string {
	t.Helper()
	w := &walk{prefix: prefix, after: after}
	var read []string
	err := filepath.WalkDir(filepath.Join(s.root, prefix), func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(s.root, path)
		if err != nil || rel == "." || rel+"/" == prefix {
			return err
		}
		if !w.wanted(&entry{filepath.ToSlash(rel), d}) {
			return fs.SkipDir
		}
		read = append(read, filepath.ToSlash(rel))
		return nil
	})
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	slices.Sort(read)
	return read
}
