// Package publish puts finished folders of a restore into place, so that a crash at
// any moment leaves each of them complete: the old one, the new one or, where that
// takes several steps, closed to any server.
//
// [Begin] makes a staging folder beside each target, on the same file system. When
// everything is built there and durable, [Workshop.Publish] writes a journal of all
// renames and makes them. After a crash [Finish] reads the journal and makes the
// rest. Nothing is ever overwritten: old folders are moved aside, to names with
// [AsidePrefix]. The package knows nothing of the contents.
package publish

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// journal is written when everything is built and durable, before the first
// folder is put into place. The next restore to the same place finds it and
// finishes the work.
type journal struct {
	Work
	Moves []move `json:"moves"`
	// Staging folders are removed at the end; the first holds the journal.
	Staging []string `json:"staging"`
}

// Work says what a restore puts into place.
type Work struct {
	Source string          `json:"source"` // the name of what is restored
	Note   json.RawMessage `json:"note"`   // the caller's own facts about it
	Dirs   []string        `json:"dirs"`   // the targets
	// Asides are the folders to which old data is moved, by the target that it was in.
	Asides map[string]string `json:"asides,omitempty"`
}

const (
	journalName = "journal.json"
	pointerName = "journal-is-in"
)

// newJournal plans how everything built is put into place.
func newJournal(c changer, source string, note any, groups []Group) (*journal, error) {
	raw, err := json.Marshal(note)
	if err != nil {
		return nil, fmt.Errorf("encode journal: %w", err)
	}
	j := &journal{Work: Work{Source: source, Note: raw}}
	folders := slices.Concat(groups...)
	stamp, err := freeStamp(folders, time.Now())
	if err != nil {
		return nil, err
	}
	for _, g := range groups {
		moves, err := g.moves(c, stamp)
		if err != nil {
			return nil, err
		}
		j.Moves = append(j.Moves, moves...)
	}
	j.Asides = map[string]string{}
	for _, f := range folders {
		if len(f.Old) > 0 || f.Exists && !f.Inside && !f.bare {
			j.Asides[f.Dir] = f.aside(stamp)
		}
		j.Dirs = append(j.Dirs, f.Dir)
		j.Staging = append(j.Staging, f.Staging())
	}
	return j, nil
}

// write makes the journal durable under its name in one step.
func (j *journal) write(c changer) error {
	raw, err := json.MarshalIndent(j, "", "  ")
	if err != nil {
		return fmt.Errorf("encode journal: %w", err)
	}
	if err := c.create(j.path(), raw); err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
	return nil
}

func (j *journal) path() string { return filepath.Join(j.Staging[0], journalName) }

// finish makes all moves that were not made yet, and then removes the staging
// folders.
func (j *journal) finish(c changer) error {
	for _, m := range j.Moves {
		if err := m.do(c); err != nil {
			err = fmt.Errorf("put %s into place: %w", m.To, err)
			if errors.Is(err, fs.ErrExist) || errors.Is(err, syscall.ENOTEMPTY) {
				return backup.WithHint(err, "something has made %s since the restore was interrupted: stop what did, move it "+
					"away (mv %s %s.stray), and run the same command again", m.To, m.To, m.To)
			}
			if j.untouched() {
				return &UnmovedError{Work: j.Work, Err: err}
			}
			return backup.WithHint(err, "run the same command again to continue; %s lists the moves", j.path())
		}
	}
	for _, m := range j.Moves {
		if _, err := os.Lstat(m.To); err != nil && !m.Away {
			return backup.WithHint(fmt.Errorf("the restored data has been lost: %w", err),
				"remove %s to start the restore again", j.Staging[0])
		}
		// An empty folder that was moved aside is removed.
		if m.Aside != "" {
			if err := c.rmdir(m.Aside); err != nil {
				return err
			}
		}
		if err := m.emptied(c); err != nil {
			return err
		}
	}
	return j.cleanUp(c)
}

// cleanUp removes the journal after everything else. If it is killed here, the
// next run learns from the journal that the work is done.
func (j *journal) cleanUp(c changer) error {
	first := j.Staging[0]
	remove := slices.Clone(j.Staging[1:])
	entries, err := os.ReadDir(first)
	if err != nil {
		return fmt.Errorf("remove staging folder: %w", err)
	}
	for _, e := range entries {
		if e.Name() != journalName {
			remove = append(remove, filepath.Join(first, e.Name()))
		}
	}
	for _, path := range append(remove, filepath.Join(first, journalName), first) {
		if err := c.removeAll(path); err != nil {
			return fmt.Errorf("remove staging folder: %w", err)
		}
	}
	return nil
}

// pending reports whether a move is still to be made.
func (j *journal) pending() bool {
	return slices.ContainsFunc(j.Moves, func(m move) bool {
		at, err := inode(m.From)
		return err == nil && (!m.Away || at == m.Inode)
	})
}

// readJournal returns the journal of the restore that the staging folder belongs
// to. It returns nil if there is none: then nothing was put into place yet.
func readJournal(staging string) (*journal, error) {
	at := staging
	raw, err := os.ReadFile(filepath.Join(staging, pointerName))
	if err == nil {
		at = string(raw)
	} else if !absent(err) {
		return nil, fmt.Errorf("look for a journal: %w", err)
	}
	raw, err = os.ReadFile(filepath.Join(at, journalName))
	if absent(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read journal: %w", err)
	}
	for _, dir := range []string{staging, at} {
		if err := trusted(dir); err != nil {
			return nil, err
		}
	}
	var j journal
	if err := json.Unmarshal(raw, &j); err != nil {
		return nil, fmt.Errorf("decode journal in %s: %w", at, err)
	}
	// A pointer may be left from an earlier restore of other targets.
	if len(j.Staging) == 0 || j.Staging[0] != at || !slices.Contains(j.Staging, staging) {
		return nil, nil
	}
	return &j, nil
}

// absent reports whether the file or one of its parent directories does not
// exist.
func absent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

// trusted refuses a staging folder that another user may have made, in a parent
// folder that everybody may write: root renames whatever a journal lists.
func trusted(staging string) error {
	st, err := os.Lstat(staging)
	if err != nil {
		return fmt.Errorf("stat staging folder: %w", err)
	}
	if sys, ok := st.Sys().(*syscall.Stat_t); ok && int(sys.Uid) != os.Geteuid() {
		return &backup.RefusedError{Reason: fmt.Sprintf("staging folder %s belongs to user %d", staging, sys.Uid)}
	}
	return nil
}

// InterruptedError is an interrupted restore that must be finished before another one
// to the same folders. It is a refusal.
type InterruptedError struct {
	Work
	// Differs names what was requested otherwise now, if a caller of [Finish] knows.
	Differs []string
}

// Error says which restore it is, and how it differs.
func (e *InterruptedError) Error() string { return e.refusal().Error() }

// Unwrap makes it a refusal.
func (e *InterruptedError) Unwrap() error { return e.refusal() }

func (e *InterruptedError) refusal() *backup.RefusedError {
	reason := fmt.Sprintf("a restore of %s into %s was interrupted and must be finished first",
		e.Source, strings.Join(e.Dirs, ", "))
	if len(e.Differs) > 0 {
		reason += "; the restore that is requested now is another one: it differs in " + strings.Join(e.Differs, ", ")
	}
	return &backup.RefusedError{Reason: reason}
}

// CheckJournal refuses while an interrupted restore has left work to finish: its
// staging folder may hold old data. The error is an [*InterruptedError].
func (f *Folder) CheckJournal() error {
	work, err := Interrupted([]string{f.Dir})
	if work == nil || err != nil {
		return err
	}
	return &InterruptedError{Work: *work}
}
