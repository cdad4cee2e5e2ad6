package publish

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/etcd-backupd/backupd/internal/disk"
)

// Workshop is the staging folders of one restore, locked. The first one holds
// the journal, and the others point to it.
type Workshop struct {
	changes   changer
	groups    []Group
	locks     []*lock
	staged    []string
	made      []string // folders that were missing, outermost first
	published bool
	work      Work
}

// Begin locks the folders of all groups and makes their staging folders. It refuses
// while another restore uses one of them, or was interrupted on it. The caller
// builds each folder in its [Folder.Tree], makes it durable, and must call
// [Workshop.Close] at the end.
func Begin(groups []Group, before Hook) (_ *Workshop, err error) {
	w := &Workshop{changes: changer{before}, groups: groups}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.Close())
		}
	}()
	for _, f := range slices.Concat(groups...) {
		if err := w.mkdirAll(filepath.Dir(f.Staging())); err != nil {
			return nil, err
		}
		l, err := takeLock(f.Staging())
		if err != nil {
			return nil, err
		}
		w.locks = append(w.locks, l)
		if err := f.CheckJournal(); err != nil {
			return nil, err
		}
		if err := f.Try(nil); err != nil {
			return nil, err
		}
		if err := w.stage(f.Staging()); err != nil {
			return nil, err
		}
	}
	return w, nil
}

func (w *Workshop) stage(dir string) error {
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
	return w.changes.sync(filepath.Join(dir, pointerName))
}

func (w *Workshop) mkdirAll(dir string) error {
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

// Publish puts everything built into place. source and note are what [Finish]
// returns as [Work] if this is interrupted.
//
// From the moment on that the journal is there the restore is finished whatever
// happens, by this run or by the next one.
func (w *Workshop) Publish(source string, note any) error {
	j, err := newJournal(w.changes, source, note, w.groups)
	if err != nil {
		return err
	}
	// Everything that the journal names must be as durable as the journal.
	durable := slices.Concat(j.Staging, parents(j.Staging), parents(w.made))
	if err := w.changes.sync(durable...); err != nil {
		return err
	}
	// If this fails the journal may be there all the same. Close takes it away
	// first, so that nobody acts on it.
	if err := j.write(w.changes); err != nil {
		return err
	}
	w.published, w.work = true, j.Work
	return j.finish(w.changes)
}

// Published reports whether the journal is there: the restore will be finished whatever
// happens.
func (w *Workshop) Published() bool { return w.published }

// Asides are the folders to which old data was moved, by the target that it was in.
func (w *Workshop) Asides() map[string]string { return w.work.Asides }

// Close ends the restore. It removes everything that was not put into place.
func (w *Workshop) Close() error {
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
func (w *Workshop) unmake() error {
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
