package disk_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/etcd-backupd/backupd/internal/disk"
)

func write(t *testing.T, path, content string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestWriteFile replaces a file, and whatever lies at the temporary name.
func TestWriteFile(t *testing.T) {
	dir := t.TempDir()
	path, foreign := filepath.Join(dir, "file"), filepath.Join(t.TempDir(), "foreign")
	write(t, path, "before")
	write(t, foreign, "foreign")
	if err := os.Symlink(foreign, path+disk.TempSuffix); err != nil {
		t.Fatal(err)
	}
	if err := disk.WriteFile(path, []byte("after")); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{path: "after", foreign: "foreign"} {
		if got, err := os.ReadFile(name); err != nil || string(got) != want {
			t.Errorf("%s holds %q, %v", name, got, err)
		}
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// TestWriteFile_Fails leaves the target and no temporary file.
func TestWriteFile_Fails(t *testing.T) {
	path := filepath.Join(t.TempDir(), "folder")
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := disk.WriteFile(path, nil); err == nil {
		t.Error("a file took the place of a folder")
	}
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 1 {
		t.Errorf("left: %v, %v", left, err)
	}
}

func TestSync(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	write(t, file, "x")
	for _, path := range []string{dir, file} {
		if err := disk.Sync(path); err != nil {
			t.Error(err)
		}
	}
	if err := disk.Sync(filepath.Join(dir, "missing")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: got %v", err)
	}
}

func TestOpenRegular(t *testing.T) {
	dir := t.TempDir()
	file, link, pipe := filepath.Join(dir, "file"), filepath.Join(dir, "link"), filepath.Join(dir, "pipe")
	write(t, file, "x")
	if err := errors.Join(os.Symlink(file, link), syscall.Mkfifo(pipe, 0o600)); err != nil {
		t.Fatal(err)
	}
	f, err := disk.OpenRegular(file, os.O_RDONLY)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
	for _, path := range []string{link, pipe, dir} {
		if f, err := disk.OpenRegular(path, os.O_RDONLY); err == nil {
			_ = f.Close()
			t.Errorf("%s was opened", path)
		}
	}
}

func TestRemove(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	write(t, file, "x")
	for range 2 {
		if err := disk.Remove(file); err != nil {
			t.Error(err)
		}
	}
	write(t, file, "x")
	if err := disk.Remove(dir); err == nil {
		t.Error("a full folder was removed")
	}
}

func TestExisting(t *testing.T) {
	dir := t.TempDir()
	for _, path := range []string{dir, filepath.Join(dir, "a"), filepath.Join(dir, "a", "b")} {
		if got := disk.Existing(path); got != dir {
			t.Errorf("%s: got %s", path, got)
		}
	}
}

func open(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

func TestTryLock(t *testing.T) {
	for name, c := range map[string]struct {
		held, wanted disk.LockKind
		want         error
	}{
		"SharedShared":       {disk.Shared, disk.Shared, nil},
		"SharedExclusive":    {disk.Shared, disk.Exclusive, disk.ErrInUse},
		"ExclusiveShared":    {disk.Exclusive, disk.Shared, disk.ErrInUse},
		"ExclusiveExclusive": {disk.Exclusive, disk.Exclusive, disk.ErrInUse},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "file")
			first, second := open(t, path), open(t, path)
			if disk.InUse(path) {
				t.Error("it is in use before it is locked")
			}
			if err := disk.TryLock(first, c.held); err != nil {
				t.Fatal(err)
			}
			if !disk.InUse(path) {
				t.Error("it is not in use")
			}
			if err := disk.TryLock(second, c.wanted); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if err := first.Close(); err != nil {
				t.Fatal(err)
			}
			if err := disk.TryLock(second, c.wanted); err != nil {
				t.Errorf("after the first gave it back: %v", err)
			}
		})
	}
}

// TestTryLock_Gone: a lock on a file without its name keeps nobody out.
func TestTryLock_Gone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	removed := open(t, path)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := disk.TryLock(removed, disk.Exclusive); !errors.Is(err, disk.ErrGone) {
		t.Errorf("removed: got %v", err)
	}
	replaced := open(t, path)
	other := open(t, filepath.Join(filepath.Dir(path), "other"))
	if err := os.Rename(other.Name(), path); err != nil {
		t.Fatal(err)
	}
	if err := disk.TryLock(replaced, disk.Shared); !errors.Is(err, disk.ErrGone) {
		t.Errorf("replaced: got %v", err)
	}
	if disk.InUse(filepath.Join(filepath.Dir(path), "missing")) {
		t.Error("a missing file is in use")
	}
}

// TestLockFile: of many at once never two hold the lock, although each removes
// the file when it gives the lock back.
func TestLockFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	var held sync.Mutex
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 100 {
				f, err := disk.LockFile(path)
				if errors.Is(err, disk.ErrInUse) {
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				if !held.TryLock() {
					t.Error("two hold it")
					return
				}
				if _, err := os.Stat(path); err != nil {
					t.Errorf("another removed it: %v", err)
				}
				held.Unlock()
				if err := errors.Join(disk.Remove(path), f.Close()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	if err := os.Symlink(filepath.Join(t.TempDir(), "elsewhere"), path); err != nil {
		t.Fatal(err)
	}
	if _, err := disk.LockFile(path); !errors.Is(err, syscall.ELOOP) {
		t.Errorf("through a link: got %v", err)
	}
}

func TestFileSystemOf(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	write(t, file, "x")
	here, err := disk.FileSystemOf(dir)
	if err != nil || here.Free <= 0 {
		t.Fatalf("got %+v, %v", here, err)
	}
	if below, err := disk.FileSystemOf(file); err != nil || below.Device != here.Device || below.Kind != here.Kind {
		t.Errorf("a file in it: got %+v, %v", below, err)
	}
	if _, err := disk.FileSystemOf(filepath.Join(dir, "missing")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: got %v", err)
	}
}

func TestCheckRoom(t *testing.T) {
	dir := t.TempDir()
	if err := disk.CheckRoom(dir, 1); err != nil {
		t.Error(err)
	}
	err := disk.CheckRoom(dir, 1<<60)
	if !errors.Is(err, syscall.ENOSPC) || !strings.Contains(err.Error(), dir) {
		t.Errorf("got %v", err)
	}
}
