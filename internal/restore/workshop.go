package restore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/disk"
)

// workshop is the staging folders of one restore, locked. The first one holds
// the journal, and the others point to it.
type workshop struct {
	changes   changer
	locks     []*lock
	staged    []string
	made      []string // folders that were missing, outermost first
	published bool
}

func newWorkshop(c changer, folders []*folder) (_ *workshop, err error) {
	w := &workshop{changes: c}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.close())
		}
	}()
	for _, f := range folders {
		if err := w.mkdirAll(filepath.Dir(f.staging())); err != nil {
			return nil, err
		}
		l, err := takeLock(f.staging())
		if err != nil {
			return nil, err
		}
		w.locks = append(w.locks, l)
		if err := f.checkJournal(); err != nil {
			return nil, err
		}
		if err := w.stage(f.staging()); err != nil {
			return nil, err
		}
	}
	return w, nil
}

func (w *workshop) stage(dir string) error {
	// A restore that was killed before it wrote a journal may have left one.
	if err := os.RemoveAll(dir); err != nil {
		return fmt.Errorf("clear staging folder: %w", err)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return fmt.Errorf("make staging folder: %w", err)
	}
	w.staged = append(w.staged, dir)
	if len(w.staged) == 1 {
		return nil
	}
	if err := os.WriteFile(filepath.Join(dir, pointerName), []byte(w.staged[0]), 0o600); err != nil {
		return fmt.Errorf("write staging folder: %w", err)
	}
	return disk.Sync(filepath.Join(dir, pointerName))
}

func (w *workshop) mkdirAll(dir string) error {
	var missing []string
	for d := dir; d != disk.Existing(dir); d = filepath.Dir(d) {
		missing = append(missing, d)
	}
	for _, d := range slices.Backward(missing) {
		err := os.Mkdir(d, 0o755)
		if errors.Is(err, fs.ErrExist) {
			continue // another process has just made it
		}
		if err != nil {
			return fmt.Errorf("make folder: %w", err)
		}
		w.made = append(w.made, d)
	}
	return nil
}

// publish puts everything built into place, as j lists.
func (w *workshop) publish(j *journal) error {
	// Everything that the journal names must be as durable as the journal.
	durable := slices.Concat(j.Staging, parents(j.Staging), parents(w.made))
	if err := w.changes.sync(durable...); err != nil {
		return err
	}
	// After an error the journal may exist all the same. close removes it first,
	// so that nobody acts on it.
	if err := j.write(w.changes); err != nil {
		return err
	}
	w.published = true
	return j.finish(w.changes)
}

// recheck reads the folders again: hours may have passed since they were checked.
func recheck(folders []*folder) error {
	for _, f := range folders {
		changed, err := f.changed()
		if err != nil {
			return err
		}
		if changed {
			return &backup.RefusedError{Reason: fmt.Sprintf("%s has changed since this restore began", f.dir)}
		}
		if err := f.checkLocks(); err != nil {
			return err
		}
	}
	return nil
}

// close ends the restore and removes everything that was not put into place.
func (w *workshop) close() error {
	var errs []error
	if !w.published {
		for _, dir := range w.staged {
			errs = append(errs, w.changes.removeAll(filepath.Join(dir, journalName)), w.changes.removeAll(dir))
		}
	}
	for _, l := range w.locks {
		errs = append(errs, l.release(w.changes))
	}
	if !w.published {
		errs = append(errs, w.unmake())
	}
	return errors.Join(errs...)
}

// unmake removes the folders that were made and not used.
func (w *workshop) unmake() error {
	for _, dir := range slices.Backward(w.made) {
		if err := w.changes.rmdir(dir); err != nil {
			return fmt.Errorf("remove folder: %w", err)
		}
	}
	return nil
}

func parents(paths []string) []string {
	var out []string
	for _, p := range paths {
		out = append(out, filepath.Dir(p))
	}
	return out
}
