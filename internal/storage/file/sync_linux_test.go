package file

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
	"testing"
)

// TestSyncDir: the names are synced on the real disk. No folder fails to sync on
// demand, so a file of /proc takes its place, which cannot be synced.
func TestSyncDir(t *testing.T) {
	root, err := os.OpenRoot("/proc/self")
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := (osDisk{}).SyncDir(root, "status"); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("got %v, want the error of the sync", err)
	}
	if err := (osDisk{}).SyncDir(root, "missing"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing: got %v", err)
	}
}
