package restore

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// lock keeps a second restore away from the same target. It ends with the
// process.
type lock struct{ file *os.File }

func lockPath(staging string) string { return staging + ".lock" }

// takeLock locks a file beside the staging folder.
func takeLock(staging string) (*lock, error) {
	path := lockPath(staging)
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, fmt.Errorf("lock target: %w", err)
		}
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			_ = f.Close() // nothing was written
			if errors.Is(err, unix.EWOULDBLOCK) {
				return nil, &backup.RefusedError{Reason: fmt.Sprintf("another restore that uses %s is running", staging)}
			}
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		// The previous holder of the lock removes the file before it releases
		// it. Then a third process may have locked a new file already.
		mine, err := f.Stat()
		if err != nil {
			return nil, errors.Join(fmt.Errorf("lock target: %w", err), f.Close())
		}
		if st, err := os.Lstat(path); err == nil && os.SameFile(st, mine) {
			return &lock{f}, nil
		}
		_ = f.Close() // nothing was written
	}
}

// release ends the lock and leaves no file behind.
func (l *lock) release(c changer) error {
	return errors.Join(c.removeAll(l.file.Name()), l.file.Close())
}
