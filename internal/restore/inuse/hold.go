package inuse

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/disk"
)

// Hold refuses a file of a member's data that a server holds, and keeps servers from it until f
// is closed. It writes nothing, and works on a file that can only be read. Where the file system
// has no locks, no server can be seen by them, and none is. dir is what the refusal speaks of.
func Hold(dir string, f *os.File) error {
	var err error
	if strings.HasSuffix(f.Name(), ".wal") {
		err = holdSegment(f)
	} else {
		err = disk.TryLock(f, disk.Shared)
	}
	switch {
	case errors.Is(err, disk.ErrInUse):
		return running(dir, f.Name())
	case errors.Is(err, disk.ErrNoLocks):
		return nil
	case err != nil:
		return fmt.Errorf("look for a running server: %w", err)
	}
	return nil
}

// RunningError is the refusal to touch what a running server uses. It unwraps to a
// [*backup.RefusedError].
type RunningError struct{ Refused *backup.RefusedError }

// Error returns the refusal.
func (e *RunningError) Error() string { return e.Refused.Error() }

// Unwrap returns the refusal.
func (e *RunningError) Unwrap() error { return e.Refused }

func running(dir, path string) error {
	return backup.WithHint(&RunningError{&backup.RefusedError{Reason: fmt.Sprintf("a running process holds %s", path)}},
		"stop the etcd server that uses %s first%s, or choose a folder that shares nothing with it", dir, holder(path))
}
