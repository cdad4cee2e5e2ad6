package restore

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// syncPath makes a file or a folder durable.
func syncPath(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("sync %s: %w", path, err)
	}
	return nil
}

// nearestExisting returns dir, or the nearest folder above it that exists.
func nearestExisting(dir string) string {
	for {
		if _, err := os.Stat(dir); err == nil || dir == filepath.Dir(dir) {
			return dir
		}
		dir = filepath.Dir(dir)
	}
}

// freeSpace returns how much this process may still write to the file system of
// dir, and which file system that is.
func freeSpace(dir string) (free int64, device uint64, err error) {
	var st unix.Statfs_t
	var id syscall.Stat_t
	if err := errors.Join(unix.Statfs(dir, &st), syscall.Stat(dir, &id)); err != nil {
		return 0, 0, fmt.Errorf("ask for free space of %s: %w", dir, err)
	}
	return int64(st.Bavail) * int64(st.Bsize), uint64(id.Dev), nil
}
