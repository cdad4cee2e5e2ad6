package disk

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// syncs is what was synced, and what the file of the test held at that moment.
type syncs []synced

type synced struct{ path, content string }

// watch records the syncs, which are made all the same, except that the one with the
// number failAt fails; -1 is never.
func watch(t *testing.T, file string, failAt int) *syncs {
	t.Helper()
	var out syncs
	real := fsync
	t.Cleanup(func() { fsync = real })
	fsync = func(f *os.File) error {
		out = append(out, synced{f.Name(), read(t, file)})
		if len(out)-1 == failAt {
			return syscall.EIO
		}
		return real(f)
	}
	return &out
}

func read(t *testing.T, path string) string {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// TestWriteFile_Order: a power cut must find the old content or the new one. So the
// new content is synced before it gets the name, and the name after that.
func TestWriteFile_Order(t *testing.T) {
	for failAt, want := range map[int]string{-1: "new", 0: "old", 1: "new"} {
		dir := t.TempDir()
		path := filepath.Join(dir, "file")
		if err := os.WriteFile(path, []byte("old"), 0o600); err != nil {
			t.Fatal(err)
		}
		got := watch(t, path, failAt)
		err := WriteFile(path, []byte("new"))
		if failed := errors.Is(err, syscall.EIO); failed != (failAt >= 0) {
			t.Errorf("sync %d fails: got %v", failAt, err)
		}
		all := syncs{{path + TempSuffix, "old"}, {dir, "new"}}
		if failAt == 0 {
			all = all[:1]
		}
		if !slices.Equal(*got, all) {
			t.Errorf("sync %d fails: synced %q, want %q", failAt, *got, all)
		}
		if content := read(t, path); content != want {
			t.Errorf("sync %d fails: the file holds %q, want %q", failAt, content, want)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
			t.Errorf("sync %d fails: left %v, %v", failAt, left, err)
		}
	}
}

// TestSyncFile_Folders: one rule for all folders: that a file system cannot sync them is no
// error. A failure is, and nothing is forgiven of a file.
func TestSyncFile_Folders(t *testing.T) {
	real := fsync
	t.Cleanup(func() { fsync = real })
	folder := t.TempDir()
	file := filepath.Join(folder, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for cause, forgiven := range map[error]bool{
		syscall.EINVAL: true, syscall.ENOTSUP: true, syscall.ENOSYS: true,
		syscall.EIO: false, syscall.ENOSPC: false, syscall.EACCES: false,
	} {
		fsync = func(f *os.File) error { return &os.PathError{Op: "sync", Path: f.Name(), Err: cause} }
		if err := Sync(folder); (err == nil) != forgiven || err != nil && !errors.Is(err, cause) {
			t.Errorf("%v of a folder: got %v", cause, err)
		}
		if err := Sync(file); !errors.Is(err, cause) {
			t.Errorf("%v of a file: got %v", cause, err)
		}
	}
}

// TestLockError: whoever has a file system without locks learns that, and which file it is.
func TestLockError(t *testing.T) {
	for err, none := range map[error]bool{unix.ENOLCK: true, unix.ENOTSUP: true, unix.ENOSYS: true, unix.EIO: false} {
		got := lockError("/spool/x", err)
		if errors.Is(got, ErrNoLocks) != none || !errors.Is(got, err) || !strings.Contains(got.Error(), "lock /spool/x") {
			t.Errorf("got %v", got)
		}
	}
}
