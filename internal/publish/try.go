package publish

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/disk"
)

// Try finds out whether the folder can be put into place, and leaves everything as it is:
// it makes a folder where the staging folder will be, or in the nearest folder above that
// exists, and removes it; and it asks for a rename of the old data that no file system
// makes. more is called with the folder that was made; it may be nil.
func (f *Folder) Try(more func(dir string) error) (err error) {
	scratch := f.Staging() + "-try"
	if parent := filepath.Dir(scratch); disk.Existing(parent) != parent {
		scratch = filepath.Join(disk.Existing(parent), stagingName+"-try")
	}
	if err := os.RemoveAll(scratch); err != nil {
		return fmt.Errorf("clear a folder of an earlier try: %w", err)
	}
	full := filepath.Join(scratch, "full")
	defer func() { err = errors.Join(err, os.RemoveAll(scratch)) }()
	if err := os.MkdirAll(filepath.Join(full, "up"), 0o700); err != nil {
		return backup.WithHint(fmt.Errorf("make a folder in %s: %w", filepath.Dir(scratch), err),
			"a restore builds beside its target, or in it if it is a mount point: this user must be able to write there")
	}
	if more != nil {
		if err := more(full); err != nil {
			return err
		}
	}
	var old []string
	switch {
	case f.Inside:
		for _, name := range f.Old {
			old = append(old, filepath.Join(f.Dir, name))
		}
	case f.Exists && !f.bare:
		old = []string{f.Dir}
	}
	for _, path := range old {
		if err := f.tryMove(path, full); err != nil {
			return err
		}
	}
	return nil
}

// tryMove asks for a rename of a folder over one that is not empty. That is refused as the
// last thing, after all that would prevent another rename of it.
func (f *Folder) tryMove(path, full string) error {
	if st, err := os.Lstat(path); err != nil || !st.IsDir() {
		return err // a file over a folder is refused for another reason, which tells nothing
	}
	err := unix.Rename(path, full)
	if err == nil {
		return errors.Join(fmt.Errorf("the file system of %s replaces a folder that is not empty", path),
			unix.Rename(full, path))
	}
	err = fmt.Errorf("%s cannot be moved aside: %w", path, err)
	switch {
	case errors.Is(err, unix.EXDEV):
		return backup.WithHint(err, "it is a part of a container's image, whose folders cannot be renamed: restore into a "+
			"volume; or move it away by mv, which copies it, and restore without --replace")
	case errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.EROFS) ||
		errors.Is(err, unix.EBUSY):
		return backup.WithHint(err, "this user must own it and be able to write in it; see 'lsattr -d' and 'mount', too")
	}
	return nil
}
