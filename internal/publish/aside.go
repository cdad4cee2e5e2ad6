package publish

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// MoveAside moves what is in the folder aside, as a restore does with old data, and leaves an
// empty folder of the same owner and mode. It returns where the old data is, or "" if there
// was none. What a crash at any moment leaves, the next call moves. It refuses while a restore
// uses the folder, or was interrupted on it.
func (f *Folder) MoveAside(before Hook) (aside string, err error) {
	c := changer{before}
	if !f.Exists || len(f.Old) == 0 && (f.Inside || f.bare) {
		return "", f.remake(c)
	}
	l, err := takeLock(f.Staging())
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, l.release(c)) }()
	if err := f.CheckJournal(); err != nil {
		return "", err
	}
	stamp, err := freeStamp([]*Folder{f}, time.Now())
	if err != nil {
		return "", err
	}
	aside = f.aside(stamp)
	if !f.Inside {
		if err := c.rename(f.Dir, aside); err != nil {
			return "", fmt.Errorf("move %s aside: %w", f.Dir, err)
		}
		return aside, errors.Join(f.remake(c), c.sync(filepath.Dir(f.Dir)))
	}
	if err := c.mkdir(aside); err != nil {
		return "", fmt.Errorf("move %s aside: %w", f.Dir, err)
	}
	for _, name := range f.Old {
		if err := c.rename(filepath.Join(f.Dir, name), filepath.Join(aside, name)); err != nil {
			return aside, fmt.Errorf("move %s aside: %w", f.Dir, err)
		}
	}
	return aside, c.sync(aside, f.Dir)
}

// remake makes the folder, if what was there was moved aside as a whole, with its owner and
// mode: a server may not be able to make a folder there itself.
func (f *Folder) remake(c changer) error {
	if _, err := os.Lstat(f.Dir); err == nil {
		return nil
	}
	asides, err := f.Asides()
	if err != nil || len(asides) == 0 {
		return err
	}
	was, err := os.Stat(asides[len(asides)-1])
	if err != nil {
		return fmt.Errorf("look at old data: %w", err)
	}
	// It is renamed into place, so that it never has another owner there.
	empty, own := f.Staging()+"-empty", was.Sys().(*syscall.Stat_t)
	if err := c.rmdir(empty); err != nil {
		return fmt.Errorf("make %s again: %w", f.Dir, err)
	}
	err = errors.Join(c.mkdir(empty), os.Chown(empty, int(own.Uid), int(own.Gid)), os.Chmod(empty, was.Mode().Perm()))
	if err == nil {
		err = c.rename(empty, f.Dir)
	}
	if errors.Is(err, fs.ErrExist) || errors.Is(err, syscall.ENOTEMPTY) {
		return c.rmdir(empty) // a server was quicker
	}
	if err != nil {
		return backup.WithHint(fmt.Errorf("make %s again: %w", f.Dir, err),
			"install -d -m %#o -o %d -g %d %s", was.Mode().Perm(), own.Uid, own.Gid, f.Dir)
	}
	return c.sync(filepath.Dir(f.Dir))
}

// Sweep removes what a killed [Folder.MoveAside] or [Folder.Try] has left, unless a restore
// uses the folder.
func (f *Folder) Sweep() error {
	l, err := takeLock(f.Staging())
	if errors.As(err, new(*backup.RefusedError)) {
		return nil
	}
	if err != nil {
		return err
	}
	c := changer{}
	return errors.Join(c.removeAll(f.Staging()+"-try"), c.rmdir(f.Staging()+"-empty"), l.release(c))
}

// Asides are the folders that hold old data of this one, the oldest first.
func (f *Folder) Asides() ([]string, error) {
	in, prefix := filepath.Dir(f.Dir), filepath.Base(f.Dir)+AsidePrefix
	if f.Inside {
		in, prefix = f.Dir, AsidePrefix
	}
	found, err := asides(in, prefix)
	return slices.Sorted(maps.Values(found)), err
}
