package publish

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/etcd-backupd/backupd/internal/disk"
)

// A Hook is called before every change by which a restore becomes visible. If it
// returns an error, the change is not made. Tests stop a restore by it; nil
// changes nothing.
type Hook func(op, path string) error

// changer makes the changes by which a restore becomes visible.
type changer struct{ before Hook }

func (c changer) step(op, path string, change func() error) error {
	if c.before != nil {
		if err := c.before(op, path); err != nil {
			return err
		}
	}
	return change()
}

// rename moves a file or a folder to a free name, or a folder over an empty
// one. Nothing is ever overwritten.
func (c changer) rename(from, to string) error {
	return c.step("rename", to, func() error {
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
func (c changer) exchange(a, b string) error {
	return c.step("exchange", b, func() error {
		if err := exchange(a, b); err != nil {
			return &os.LinkError{Op: "exchange", Old: a, New: b, Err: err}
		}
		return nil
	})
}

// cannotExchange reports whether err says that the file system cannot exchange two
// names. It may be able to rename all the same; [Folder.Try] has found that out.
func cannotExchange(err error) bool {
	for _, e := range []error{unix.EINVAL, unix.ENOSYS, unix.EOPNOTSUPP, unix.EXDEV} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// create writes a file that appears as a whole or not at all.
func (c changer) create(path string, content []byte) error {
	tmp := path + ".tmp"
	err := c.step("write", tmp, func() error { return os.WriteFile(tmp, content, 0o600) })
	if err != nil {
		return err
	}
	if err := c.sync(tmp); err != nil {
		return err
	}
	if err := c.step("rename", path, func() error { return os.Rename(tmp, path) }); err != nil {
		return err
	}
	return c.sync(filepath.Dir(path))
}

// mkdir makes a folder unless it exists.
func (c changer) mkdir(path string) error {
	if _, err := os.Lstat(path); err == nil {
		return nil
	}
	return c.step("mkdir", path, func() error { return os.Mkdir(path, 0o700) })
}

// rmdir removes a folder if it is empty.
func (c changer) rmdir(path string) error {
	return c.step("rmdir", path, func() error {
		switch err := unix.Rmdir(path); err {
		case nil, unix.ENOENT, unix.ENOTDIR, unix.ENOTEMPTY, unix.EEXIST:
			return nil
		default:
			return &fs.PathError{Op: "rmdir", Path: path, Err: err}
		}
	})
}

func (c changer) removeAll(path string) error {
	return c.step("remove", path, func() error { return os.RemoveAll(path) })
}

// sync makes the given files or folders durable, each once.
func (c changer) sync(paths ...string) error {
	slices.Sort(paths)
	for _, path := range slices.Compact(paths) {
		if err := c.step("sync", path, func() error { return disk.Sync(path) }); err != nil {
			return err
		}
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
