package publish

import (
	"errors"
	"fmt"
	"os"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/disk"
)

// lock prevents a second restore to the same target. It ends with the process.
type lock struct{ file *os.File }

func lockPath(staging string) string { return staging + ".lock" }

// takeLock locks a file beside the staging folder.
func takeLock(staging string) (*lock, error) {
	f, err := disk.LockFile(lockPath(staging))
	if errors.Is(err, disk.ErrInUse) {
		return nil, &backup.RefusedError{Reason: fmt.Sprintf("another restore that uses %s is running", staging)}
	}
	if err != nil {
		return nil, fmt.Errorf("lock target: %w", err)
	}
	return &lock{f}, nil
}

// release ends the lock and leaves no file behind.
func (l *lock) release(c changer) error {
	return errors.Join(c.removeAll(l.file.Name()), l.file.Close())
}
