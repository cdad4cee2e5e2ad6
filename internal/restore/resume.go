package restore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// Finished tells of an interrupted restore that was completed.
type Finished struct {
	Source    string
	Token     string
	ClusterID backup.MemberID
	Dirs      []string
	// SameRequest tells that the request which led to it asks for the same
	// targets, members and changes as the one that was interrupted. The source
	// is for the caller to compare.
	SameRequest bool
}

// FinishInterrupted completes a restore into a requested target that was killed
// while it put finished folders into place. It returns nil when there is none.
// A running server on a target is a [*backup.RefusedError].
//
// The caller must look at the result: what was finished is what the interrupted
// request wanted, which may be another one than req.
func FinishInterrupted(req Request) (*Finished, error) {
	candidates, err := req.stagings()
	if err != nil {
		return nil, err
	}
	for _, dir := range candidates {
		j, err := readJournal(dir)
		if err != nil {
			return nil, err
		}
		if j == nil {
			if err := tidy(disk{req.before}, dir); err != nil {
				return nil, err
			}
			continue
		}
		if err := j.resume(disk{req.before}); err != nil {
			return nil, fmt.Errorf("finish the interrupted restore of %s: %w", j.Source, err)
		}
		return &Finished{j.Source, j.Token, j.ClusterID, j.Dirs, j.Asked.equal(req.asked())}, nil
	}
	return nil, nil
}

func (j *journal) resume(d disk) (err error) {
	var locks []*lock
	defer func() {
		for _, l := range locks {
			err = errors.Join(err, l.release(d))
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
	return j.finish(d)
}

// tidy removes what a restore left that was killed before there was anything to
// finish, or when everything was.
func tidy(d disk, staging string) (err error) {
	if _, err := os.Lstat(lockPath(staging)); err != nil {
		return nil // no restore was killed here
	}
	l, err := takeLock(staging)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, l.release(d)) }()
	if j, err := readJournal(staging); j != nil || err != nil {
		return err
	}
	if err := d.removeAll(staging); err != nil {
		return fmt.Errorf("remove staging folder: %w", err)
	}
	return nil
}

// checkStopped refuses a target that an etcd was started on after the crash.
func checkStopped(dir string) error {
	if st, err := os.Stat(dir); err == nil && !st.IsDir() {
		return nil // closed by the restore
	}
	for _, kind := range []slotKind{dataSlot, walSlot} {
		s, err := newSlot(dir, kind)
		if err != nil {
			return err
		}
		if err := s.checkLocks(); err != nil {
			return err
		}
	}
	return nil
}

// stagings lists where a restore with this request may have left its journal,
// or word of it.
func (r *Request) stagings() ([]string, error) {
	if r.OutputDir != "" {
		return stagingsIn(r.OutputDir)
	}
	dirs := []string{r.DataDir}
	if r.DataDir == "" {
		dirs[0] = r.Name + ".etcd"
	}
	if r.WALDir != "" {
		dirs = append(dirs, r.WALDir)
	}
	var out []string
	for _, dir := range dirs {
		abs, err := resolve(dir)
		if err != nil {
			return nil, err
		}
		out = append(out, stagings(abs)...)
	}
	return out, nil
}

// stagingsIn lists where they may be for targets in dir, which may not be there
// yet themselves.
func stagingsIn(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for an interrupted restore: %w", err)
	}
	var out []string
	for _, e := range entries {
		target := e.Name()
		if inner, ok := strings.CutSuffix(target, stagingName); ok {
			target = strings.TrimPrefix(inner, ".")
		}
		// Links that lead nowhere are no targets.
		if abs, err := resolve(filepath.Join(dir, target)); err == nil {
			out = append(out, stagings(abs)...)
		}
	}
	return out, nil
}
