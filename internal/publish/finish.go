package publish

import (
	"errors"
	"fmt"
	"os"
	"reflect"
)

// Judge decides about an interrupted restore before anything of it is moved. An error
// of either function leaves everything as it is.
type Judge struct {
	// Accept is asked whether this restore may be finished.
	Accept func(Work) error
	// Stopped is called with each target that is not yet in place, and with whether its
	// contents are moved, and not the folder. It must refuse one that is in use.
	Stopped func(dir string, inside bool) error
}

// Finish completes an earlier restore to one of these folders that was killed while
// it put its folders into place. It returns nil when there is none.
func Finish(dirs []string, judge Judge, before Hook) (*Work, error) {
	c := changer{before}
	for _, dir := range dirs {
		for _, staging := range stagings(dir) {
			j, err := readJournal(staging)
			if err != nil {
				return nil, err
			}
			if j == nil {
				if err := tidy(c, staging); err != nil {
					return nil, err
				}
				continue
			}
			done, err := j.resume(c, judge)
			if errors.As(err, new(*InterruptedError)) {
				return nil, err
			}
			if err != nil {
				return nil, fmt.Errorf("finish the interrupted restore of %s: %w", j.Source, err)
			}
			if done {
				return &j.Work, nil
			}
		}
	}
	return nil, nil
}

// Interrupted returns the restore to one of these folders that [Finish] would
// complete, or nil. It changes nothing.
func Interrupted(dirs []string) (*Work, error) {
	j, err := find(dirs)
	if j == nil || err != nil {
		return nil, err
	}
	return &j.Work, nil
}

// resume makes the rest of the moves. It returns false if another process has just made
// them: nobody was asked whether this is the restore that is wanted.
func (j *journal) resume(c changer, judge Judge) (done bool, err error) {
	err = j.locked(c, func() error {
		if err := judge.Accept(j.Work); err != nil {
			return err
		}
		if j.pending() {
			for i, dir := range j.Dirs {
				if err := judge.Stopped(dir, j.Staging[i] == stagings(dir)[1]); err != nil {
					return err
				}
			}
		}
		done = true
		return j.finish(c)
	})
	return done, err
}

// locked calls do under the locks of the restore, so that nothing can change between an
// answer and the moves. It does not if another process has finished the restore, and
// refuses if that has begun another one.
func (j *journal) locked(c changer, do func() error) (err error) {
	var locks []*lock
	defer func() {
		for _, l := range locks {
			err = errors.Join(err, l.release(c))
		}
	}()
	for _, dir := range j.Staging {
		l, err := takeLock(dir)
		if err != nil {
			return err
		}
		locks = append(locks, l)
	}
	switch still, err := readJournal(j.Staging[0]); {
	case still == nil || err != nil:
		return err
	case !reflect.DeepEqual(still, j):
		return &InterruptedError{Work: still.Work} // another process has begun it
	}
	return do()
}

// tidy removes the staging folder of a restore that was killed before its journal
// was written, or after all its moves were made.
func tidy(c changer, staging string) (err error) {
	if _, err := os.Lstat(lockPath(staging)); err != nil {
		return nil // no restore was killed here
	}
	l, err := takeLock(staging)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.release(c)) }()
	if j, err := readJournal(staging); j != nil || err != nil {
		return err
	}
	if err := c.removeAll(staging); err != nil {
		return fmt.Errorf("remove staging folder: %w", err)
	}
	return nil
}
