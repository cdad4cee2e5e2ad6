package restore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// workshop is the staging folders of one restore, locked. The first one holds
// the journal, and the others say where that is.
type workshop struct {
	plan      *Plan
	locks     []*lock
	staged    []string
	made      []string // folders that were missing, outermost first
	published bool
}

func newWorkshop(p *Plan) (_ *workshop, err error) {
	w := &workshop{plan: p}
	defer func() {
		if err != nil {
			err = errors.Join(err, w.close())
		}
	}()
	for _, s := range p.slots() {
		if err := w.mkdirAll(filepath.Dir(s.staging)); err != nil {
			return nil, err
		}
		l, err := takeLock(s.staging)
		if err != nil {
			return nil, err
		}
		w.locks = append(w.locks, l)
		if err := s.checkJournal(); err != nil {
			return nil, err
		}
		if err := w.stage(s.staging); err != nil {
			return nil, err
		}
	}
	return w, nil
}

// slots returns all folders that are restored; the first is a data directory.
func (p *Plan) slots() []*slot {
	var out []*slot
	for _, t := range p.Targets {
		out = append(out, t.slots()...)
	}
	return out
}

func (w *workshop) stage(dir string) error {
	// What a restore left that died before it had built everything.
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
	return syncPath(filepath.Join(dir, pointerName))
}

func (w *workshop) mkdirAll(dir string) error {
	var missing []string
	for d := dir; d != nearestExisting(dir); d = filepath.Dir(d) {
		missing = append(missing, d)
	}
	for _, d := range slices.Backward(missing) {
		err := os.Mkdir(d, 0o755)
		if errors.Is(err, fs.ErrExist) {
			continue // by somebody else, at this moment
		}
		if err != nil {
			return fmt.Errorf("make folder: %w", err)
		}
		w.made = append(w.made, d)
	}
	return nil
}

// publish puts everything built into place.
func (w *workshop) publish() error {
	if err := w.plan.recheck(); err != nil {
		return err
	}
	d := disk{w.plan.req.before}
	j, err := w.plan.journal(time.Now())
	if err != nil {
		return err
	}
	// What the journal speaks of must be as durable as the journal.
	durable := slices.Concat(j.Staging, parents(j.Staging), parents(w.made))
	if err := d.sync(durable...); err != nil {
		return err
	}
	// If this fails the journal may be there all the same. close takes it away
	// first, so that nobody acts on it.
	if err := j.write(d); err != nil {
		return err
	}
	w.published = true
	return j.finish(d)
}

// recheck looks again at what was found when the plan was made: that may be
// hours ago.
func (p *Plan) recheck() error {
	for _, s := range p.slots() {
		changed, err := s.changed()
		if err != nil {
			return err
		}
		if changed {
			return &backup.RefusedError{Reason: fmt.Sprintf("%s has changed since this restore began", s.dir)}
		}
		if err := s.checkLocks(); err != nil {
			return err
		}
	}
	return nil
}

// close ends the restore: whatever was not put into place is removed.
func (w *workshop) close() error {
	var errs []error
	d := disk{w.plan.req.before}
	if !w.published {
		for _, dir := range w.staged {
			errs = append(errs, d.removeAll(filepath.Join(dir, journalName)), d.removeAll(dir))
		}
	}
	for _, l := range w.locks {
		errs = append(errs, l.release(d))
	}
	if !w.published {
		errs = append(errs, w.unmake(d))
	}
	return errors.Join(errs...)
}

// unmake removes the folders that were made for nothing.
func (w *workshop) unmake(d disk) error {
	for _, dir := range slices.Backward(w.made) {
		if err := d.rmdir(dir); err != nil {
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
