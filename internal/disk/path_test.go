package disk_test

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/etcd-backupd/backupd/internal/disk"
)

// TestHolds compares paths by what they lead to.
func TestHolds(t *testing.T) {
	root, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{"srv/repo/prod", "srv/repository", "etc"} {
		if err := os.MkdirAll(filepath.Join(root, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{
		"link": filepath.Join(root, "srv/repo"), "relative": "srv/repo/prod", "etc/up": "..",
	} {
		if err := os.Symlink(to, filepath.Join(root, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(root, "etc/file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		outer, inner string
		want         bool
	}{
		{"srv/repo", "srv/repo", true},
		{"srv/repo", "srv/repo/", true},
		{"srv/repo", "srv/repo/prod", true},
		{"srv/repo/prod", "srv/repo", false},
		{"srv/repo", "srv/repository", false}, // the beginning of a name is no folder
		{"srv/repo", "link", true},
		{"link", "srv/repo/new", true},
		{"srv/repo", "link/new/deeper", true},
		{"srv/repo", "relative", true},
		{"link", "relative/new", true},
		{"relative", "link", false},
		{".", "srv/../etc/up/srv/repo", true},
		{"etc/up/srv", "link", true},
		{"etc", "etc/file", true},
		{"etc/file", "etc/file", true},
		{"etc/file", "etc/file/below", true},
		{"etc/file", "etc", false},
		// Neither is there yet.
		{"srv/new", "srv/new", true},
		{"srv/repo/new", "link/new/deeper", true},
		{"srv/new", "srv/newer", false},
		{"srv/new", "srv", false},
		{"srv/new", "etc/new", false},
		{"srv/repo/new/deeper", "link/new", false},
	} {
		outer, inner := filepath.Join(root, c.outer), root+"/"+c.inner
		if got, err := disk.Holds(outer, inner); got != c.want || err != nil {
			t.Errorf("Holds(%s, %s) is %v, %v, want %v", c.outer, c.inner, got, err, c.want)
		}
	}
	up, err := disk.Up(filepath.Join(root, "link", "not", "there"))
	if err != nil || up[0] != filepath.Join(root, "srv/repo") || !slices.Contains(up, root) || !slices.Contains(up, "/") {
		t.Errorf("above a folder that is not there: %v, %v", up, err)
	}
}
