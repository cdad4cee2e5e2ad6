package snapshot_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/etcd-backupd/backupd/internal/snapshot"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// TestSaver_Save_NoSync: a snapshot that cannot be synced replaces nothing.
func TestSaver_Save_NoSync(t *testing.T) {
	db := realDatabase(t)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "snap.db"), []byte("an older snapshot"), 0o600); err != nil {
		t.Fatal(err)
	}
	replaced := 0
	saver := snapshot.Saver{
		Source:   connect(t, startFakes(t, db, testserver.GoodSnapshot(db.raw)).urls...),
		Progress: func(done, _ int64) { replaced += replaceOpen(t, filepath.Join(dir, ".snap.db.")) },
	}
	if _, err := saver.Save(t.Context(), filepath.Join(dir, "snap.db")); !errors.Is(err, unix.EINVAL) {
		t.Errorf("got %v, want the error of the sync", err)
	}
	if replaced != 1 {
		t.Errorf("%d files were replaced, want 1", replaced)
	}
	if raw := wantOnly(t, dir, "snap.db"); string(raw) != "an older snapshot" {
		t.Errorf("it was replaced by %d bytes", len(raw))
	}
}

// replaceOpen replaces each file that this process has open, and whose path begins
// with prefix, by the null device, which takes every byte and cannot be synced. It
// returns how many there were.
func replaceOpen(t *testing.T, prefix string) (n int) {
	t.Helper()
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		path, err := os.Readlink("/proc/self/fd/" + e.Name())
		if err != nil || !strings.HasPrefix(path, prefix) { // what read the folder is closed by now
			continue
		}
		fd, err := strconv.Atoi(e.Name())
		if err == nil {
			err = unix.Dup3(int(null.Fd()), fd, unix.O_CLOEXEC)
		}
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	return n
}

// TestSaver_Save_NoFolderSync: the name must be durable too. A folder that can be
// written and not read cannot be synced, and the error says so.
func TestSaver_Save_NoFolderSync(t *testing.T) {
	db := realDatabase(t)
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o300); err != nil {
		t.Fatal(err)
	}
	saver := snapshot.Saver{Source: connect(t, startFakes(t, db, testserver.GoodSnapshot(db.raw)).urls...)}
	err := asPlainUser(func() error {
		_, err := saver.Save(t.Context(), filepath.Join(dir, "snap.db"))
		return err
	})
	if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "sync") {
		t.Errorf("got %v, want the error of the sync", err)
	}
	if err := os.Chmod(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if raw := wantOnly(t, dir, "snap.db"); len(raw) <= len(db.raw) {
		t.Errorf("got %d bytes", len(raw))
	}
}

// asPlainUser calls f without the right of root to open what its mode forbids.
func asPlainUser(f func() error) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked, so the thread ends with its rights
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var sets [2]unix.CapUserData
		err := unix.Capget(&header, &sets[0])
		sets[0].Effective &^= 1<<unix.CAP_DAC_OVERRIDE | 1<<unix.CAP_DAC_READ_SEARCH
		if err == nil {
			err = unix.Capset(&header, &sets[0])
		}
		if err == nil {
			err = f()
		}
		result <- err
	}()
	return <-result
}
