package publish

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/etcd-backupd/backupd/internal/disk"
)

// TestNewFolder_Name: a name is refused before anything is made, unless there is room for
// all names that are made from it.
func TestNewFolder_Name(t *testing.T) {
	root := t.TempDir()
	for n := maxName; n > 0; n-- {
		f, err := NewFolder(Place{Dir: filepath.Join(root, strings.Repeat("a", n))}, nil)
		if err != nil {
			if n < 200 || !strings.Contains(err.Error(), "is too long by") {
				t.Fatalf("%d bytes: %v", n, err)
			}
			continue
		}
		stamp, err := freeStamp([]*Folder{f}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Mkdir(f.aside(stamp), 0o700); err != nil {
			t.Fatal(err)
		}
		stamp, err = freeStamp([]*Folder{f}, time.Now()) // longer, if it is the same second
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range []string{f.aside(stamp), f.aside(longestStamp), f.Staging(), f.Dir} {
			if err := os.MkdirAll(name, 0o700); err != nil {
				t.Errorf("%d bytes: %v", n, err)
			}
		}
		l, err := disk.LockFile(lockPath(f.Staging()))
		if err != nil {
			t.Fatalf("%d bytes: %v", n, err)
		}
		_ = l.Close()
		return
	}
}

// A mount point gets its new data inside, and so its name may be as long as can be.
func TestNewFolder_NameOfMount(t *testing.T) {
	dir := filepath.Join(t.TempDir(), strings.Repeat("a", maxName))
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := NewFolder(Place{Dir: dir}, []disk.Mount{{Point: dir}}); err != nil {
		t.Error(err)
	}
}
