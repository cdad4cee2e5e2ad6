package restore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// disk makes the changes by which a restore becomes visible. Tests stand
// before each of them.
type disk struct {
	// before, when not nil, is told what comes next; its error is returned
	// instead.
	before func(op, path string) error
}

func (d disk) step(op, path string, change func() error) error {
	if d.before != nil {
		if err := d.before(op, path); err != nil {
			return err
		}
	}
	return change()
}

// rename moves a file or a folder to a free name, or a folder over an empty
// one. Nothing is ever overwritten.
func (d disk) rename(from, to string) error {
	return d.step("rename", to, func() error {
		if _, err := os.Lstat(from); err != nil {
			return err
		}
		if st, err := os.Lstat(to); err == nil && !st.IsDir() {
			return &os.LinkError{Op: "rename", Old: from, New: to, Err: fs.ErrExist}
		}
		// os.Rename would refuse an empty folder in the way.
		if err := unix.Rename(from, to); err != nil {
			return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
		}
		return nil
	})
}

// exchange swaps two files or folders in one step, so that there is no moment
// without either.
func (d disk) exchange(a, b string) error {
	return d.step("exchange", b, func() error {
		if err := exchange(a, b); err != nil {
			return &os.LinkError{Op: "exchange", Old: a, New: b, Err: err}
		}
		return nil
	})
}

// cannotExchange tells a file system that has no such operation.
func cannotExchange(err error) bool {
	return errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EOPNOTSUPP)
}

// create writes a file that is there as a whole or not at all.
func (d disk) create(path string, content []byte) error {
	tmp := path + ".tmp"
	err := d.step("write", tmp, func() error { return os.WriteFile(tmp, content, 0o600) })
	if err != nil {
		return err
	}
	if err := d.sync(tmp); err != nil {
		return err
	}
	if err := d.step("rename", path, func() error { return os.Rename(tmp, path) }); err != nil {
		return err
	}
	return d.sync(filepath.Dir(path))
}

// mkdir makes a folder that is not there.
func (d disk) mkdir(path string) error {
	if _, err := os.Lstat(path); err == nil {
		return nil
	}
	return d.step("mkdir", path, func() error { return os.Mkdir(path, 0o700) })
}

// rmdir removes a folder if it is empty.
func (d disk) rmdir(path string) error {
	return d.step("rmdir", path, func() error {
		switch err := unix.Rmdir(path); err {
		case nil, unix.ENOENT, unix.ENOTDIR, unix.ENOTEMPTY, unix.EEXIST:
			return nil
		default:
			return &fs.PathError{Op: "rmdir", Path: path, Err: err}
		}
	})
}

func (d disk) removeAll(path string) error {
	return d.step("remove", path, func() error { return os.RemoveAll(path) })
}

// sync makes the given files or folders durable, each once.
func (d disk) sync(paths ...string) error {
	slices.Sort(paths)
	for _, path := range slices.Compact(paths) {
		if err := d.step("sync", path, func() error { return syncPath(path) }); err != nil {
			return err
		}
	}
	return nil
}

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

func inode(path string) (uint64, error) {
	st, err := os.Lstat(path)
	if err != nil {
		return 0, err
	}
	return st.Sys().(*syscall.Stat_t).Ino, nil
}
