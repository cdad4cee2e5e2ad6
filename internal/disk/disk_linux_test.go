package disk_test

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/etcd-backupd/backupd/internal/disk"
)

// TestAllocate: other processes see the space that was set aside, readers see
// nothing of it.
func TestAllocate(t *testing.T) {
	fd, err := unix.MemfdCreate("spool", 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "spool")
	defer f.Close()
	disk.Allocate(f, 1<<20)
	info, err := f.Stat()
	if err != nil || info.Size() != 0 || disk.SpaceOf(info) < 1<<20 {
		t.Errorf("size %d, space %d, %v", info.Size(), disk.SpaceOf(info), err)
	}
}

// TestSync_Unsupported: /proc can sync nothing, like the folders of CIFS.
func TestSync_Unsupported(t *testing.T) {
	if err := disk.Sync("/proc"); err != nil {
		t.Errorf("a folder: %v", err)
	}
	if err := disk.Sync("/proc/self/status"); !errors.Is(err, unix.EINVAL) {
		t.Errorf("a file: got %v", err)
	}
}
