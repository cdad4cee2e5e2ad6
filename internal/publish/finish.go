package publish

import (
	"errors"
	"fmt"
	"os"
)

// Finish completes an earlier restore to one of these folders that was killed while
// it put its folders into place. It returns nil when there is none. stopped is
// called with each target of that restore before anything is moved, and must refuse
// one that is in use.
func Finish(dirs []string, stopped func(dir string) error, before Hook) (*Work, error) {
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
			if err := j.resume(c, stopped); err != nil {
				return nil, fmt.Errorf("finish the interrupted restore of %s: %w", j.Source, err)
			}
			return &j.Work, nil
		}
	}
	return nil, nil
}

func (j *journal) resume(c changer, stopped func(dir string) error) (err error) {
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
	if still, err := readJournal(j.Staging[0]); still == nil || err != nil {
		return err // another process has just finished it
	}
	if j.pending() {
		for _, dir := range j.Dirs {
			if err := stopped(dir); err != nil {
				return err
			}
		}
	}
	return j.finish(c)
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
