package disk

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Errors of [TryLock].
var (
	// ErrInUse says that another process holds the lock.
	ErrInUse = errors.New("in use by another process")
	// ErrGone says that the file was removed or replaced before it was locked.
	// Its lock would keep nobody out.
	ErrGone = errors.New("it was removed or replaced meanwhile")
	// ErrNoLocks says that the file system cannot lock files.
	ErrNoLocks = errors.New("its file system gives no locks")
)

// LockKind says whom a lock keeps out.
type LockKind int

// Kinds of locks.
const (
	Exclusive LockKind = unix.LOCK_EX // keeps out everybody else
	Shared    LockKind = unix.LOCK_SH // keeps out those who want an exclusive lock
)

// TryLock locks an open file with flock(2), without waiting, and makes sure that
// the file still has the name it was opened by. The lock is advisory, and it ends
// when f is closed or the process ends. The error wraps [ErrInUse] or [ErrGone],
// or says why the file system could not lock. After [ErrGone] f is locked all the
// same, after any other error it is not. The caller closes f.
//
// A process that removes a locked file must remove it before it closes it. The next
// one to lock the file then finds that it is gone.
func TryLock(f *os.File, kind LockKind) error {
	err := unix.Flock(int(f.Fd()), int(kind)|unix.LOCK_NB)
	switch {
	case errors.Is(err, unix.EWOULDBLOCK):
		return fmt.Errorf("lock %s: %w", f.Name(), ErrInUse)
	case err != nil:
		return lockError(f.Name(), err)
	}
	here, err := f.Stat()
	if err != nil {
		return fmt.Errorf("lock %s: %w", f.Name(), err)
	}
	if named, err := os.Lstat(f.Name()); err != nil || !os.SameFile(here, named) {
		return fmt.Errorf("lock %s: %w", f.Name(), ErrGone)
	}
	return nil
}

func lockError(path string, err error) error {
	if errors.Is(err, unix.ENOLCK) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.ENOTSUP) {
		return fmt.Errorf("lock %s: %w: %w", path, ErrNoLocks, err)
	}
	return fmt.Errorf("lock %s: %w", path, err)
}

// LockFile makes the file at path unless it exists, and locks it for this
// process alone. The error wraps [ErrInUse] if another process has it. To give
// the lock back, remove the file and then close it.
func LockFile(path string) (*os.File, error) {
	for {
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
		if err != nil {
			return nil, fmt.Errorf("lock: %w", err)
		}
		if err = TryLock(f, Exclusive); err == nil {
			return f, nil
		}
		_ = f.Close() // nothing was written
		// If its last holder removed it, another process may have made a new
		// one already: try again with that.
		if !errors.Is(err, ErrGone) {
			return nil, err
		}
	}
}

// InUse reports whether another process, or another open file of this one,
// holds a lock on the file at path. A file that cannot be opened is not in use.
func InUse(path string) bool {
	f, err := OpenRegular(path, os.O_RDWR) // on NFS an exclusive lock needs a file that can be written
	if err != nil {
		return false
	}
	err = TryLock(f, Exclusive)
	_ = f.Close() // gives the lock back
	return errors.Is(err, ErrInUse)
}
