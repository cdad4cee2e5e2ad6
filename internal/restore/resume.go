package restore

import (
	"errors"
	"fmt"
	"os"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// Finished describes an interrupted restore that was completed.
type Finished struct {
	Source    string
	Token     string
	ClusterID backup.MemberID
	Dirs      []string
	// SameRequest reports whether the interrupted restore had the same targets,
	// members and changes as the one that is requested now. The caller must
	// compare the source.
	SameRequest bool
}

// FinishInterrupted completes an earlier restore to the same folders that was
// killed while it put them into place. It returns nil if there is none. It returns
// a [*backup.RefusedError] if a server runs on a target.
//
// The caller must compare the result with its own request: the interrupted restore
// may have been a different one.
func FinishInterrupted(s Site, r Request) (*Finished, error) {
	return finishInterrupted(s, r, changer{})
}

func finishInterrupted(s Site, r Request, c changer) (*Finished, error) {
	dirs, err := s.dirs()
	if err != nil {
		return nil, err
	}
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
			if err := j.resume(c); err != nil {
				return nil, fmt.Errorf("finish the interrupted restore of %s: %w", j.Source, err)
			}
			return &Finished{j.Source, j.Token, j.ClusterID, j.Dirs, j.Asked.equal(newAsked(&s, r))}, nil
		}
	}
	return nil, nil
}

func (j *journal) resume(c changer) (err error) {
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
			if err := checkStopped(dir); err != nil {
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

// checkStopped refuses a target on which an etcd was started after the crash.
func checkStopped(dir string) error {
	if st, err := os.Stat(dir); err == nil && !st.IsDir() {
		return nil // closed by the restore
	}
	for _, p := range []place{{kind: dataFolder, dir: dir, wal: usualWAL}, {kind: walFolder, dir: dir, wal: "."}} {
		found, err := p.read()
		if err != nil {
			return err
		}
		if err := (&folder{place: p, contents: found}).checkLocks(); err != nil {
			return err
		}
	}
	return nil
}
