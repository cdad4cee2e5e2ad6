package publish

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// UnmovedError is a restore that is complete, and of which nothing could be put into
// place: everything old is where it was.
type UnmovedError struct {
	Work
	Err error
}

// Error says what went wrong.
func (e *UnmovedError) Error() string { return e.Err.Error() }

// Unwrap returns the reason.
func (e *UnmovedError) Unwrap() error { return e.Err }

// Untouched reports whether a restore to one of these folders was interrupted, and nothing
// of it has been moved, so that [Abort] can give it up.
func Untouched(dirs []string) (bool, error) {
	j, err := find(dirs)
	return j != nil && j.untouched(), err
}

// Abort gives up a restore to one of these folders that was interrupted before anything was
// moved, and removes what it had built. It returns nil if there is none, and refuses if
// something has been moved.
func Abort(dirs []string, before Hook) (*Work, error) {
	j, err := find(dirs)
	if j == nil || err != nil {
		return nil, err
	}
	c := changer{before}
	given := false
	err = j.locked(c, func() error {
		if !j.untouched() {
			return &backup.RefusedError{Reason: fmt.Sprintf(
				"the restore of %s has begun to move folders: it can only be finished", j.Source)}
		}
		given = true
		return j.discard(c)
	})
	if err != nil || !given {
		return nil, err
	}
	return &j.Work, nil
}

// find returns the journal of the restore to one of these folders, or nil.
func find(dirs []string) (*journal, error) {
	for _, dir := range dirs {
		for _, staging := range stagings(dir) {
			if j, err := readJournal(staging); j != nil || err != nil {
				return j, err
			}
		}
	}
	return nil, nil
}

// untouched reports whether no move was made, not even in part.
func (j *journal) untouched() bool {
	for _, m := range j.Moves {
		at, err := inode(m.From)
		if err != nil || at != m.Inode {
			return false
		}
		if _, err := os.Lstat(m.Aside); m.Aside != "" && err == nil {
			return false
		}
	}
	return true
}

// isAside reports whether the folder was made to move entries of another one into it.
func isAside(dir string) bool {
	name := filepath.Base(dir)
	return strings.HasPrefix(name, AsidePrefix) || strings.HasPrefix(name, UndonePrefix)
}

// discard removes the journal before everything that it names, so that nobody acts on the
// rest of it.
func (j *journal) discard(c changer) error {
	if err := c.removeAll(j.path()); err != nil {
		return fmt.Errorf("remove journal: %w", err)
	}
	if err := c.sync(j.Staging[0]); err != nil {
		return err
	}
	var errs []error
	for _, dir := range j.Staging {
		errs = append(errs, c.removeAll(dir))
	}
	// Folders that were made for the first entry to be moved aside are empty.
	for _, m := range j.Moves {
		if aside := m.asideFolder(); isAside(aside) {
			errs = append(errs, c.rmdir(aside))
		}
	}
	return errors.Join(errs...)
}
