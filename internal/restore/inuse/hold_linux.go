package inuse

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/etcd-backupd/backupd/internal/disk"
)

// holdSegment takes a lock that goes with others like it, and not with that of etcd, which
// locks its segments so that the lock belongs to the open file, as this one does.
func holdSegment(f *os.File) error {
	err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_RDLCK})
	switch {
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EACCES):
		return fmt.Errorf("lock %s: %w", f.Name(), disk.ErrInUse)
	case errors.Is(err, unix.ENOLCK), errors.Is(err, unix.ENOSYS), errors.Is(err, unix.ENOTSUP):
		return fmt.Errorf("lock %s: %w: %w", f.Name(), disk.ErrNoLocks, err)
	case err != nil:
		return fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	return nil
}

// holder names the process that has a file open, as far as this user may see it.
func holder(path string) string {
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		return ""
	}
	own := fmt.Sprintf("/proc/%d/", os.Getpid())
	links, err := filepath.Glob("/proc/[0-9]*/fd/*")
	if err != nil {
		return ""
	}
	for _, link := range links {
		if to, err := os.Readlink(link); err != nil || to != real || strings.HasPrefix(link, own) {
			continue
		}
		process := filepath.Dir(filepath.Dir(link))
		name, err := os.ReadFile(filepath.Join(process, "comm"))
		if err != nil {
			continue // it has ended meanwhile
		}
		return fmt.Sprintf(" (process %s, %s)", filepath.Base(process), strings.TrimSpace(string(name)))
	}
	return ""
}
