package restore

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
// folder is put into place. Whoever finds one finishes what it says.
type journal struct {
	Source    string          `json:"source"`
	Token     string          `json:"token"`
	ClusterID backup.MemberID `json:"clusterID"`
	Asked     asked           `json:"asked"`
	Dirs      []string        `json:"dirs"` // the targets
	Moves     []move          `json:"moves"`
	// Staging folders are removed at the end; the first holds the journal.
	Staging []string `json:"staging"`
}

// asked is what of a request decides what is restored and where.
type asked struct {
	Name           string   `json:"name,omitempty"`
	DataDir        string   `json:"dataDir,omitempty"`
	WALDir         string   `json:"walDir,omitempty"`
	OutputDir      string   `json:"outputDir,omitempty"`
	InitialCluster string   `json:"initialCluster,omitempty"`
	Token          string   `json:"token,omitempty"`
	PeerURLs       []string `json:"peerURLs,omitempty"`
	BumpRevision   uint64   `json:"bumpRevision,omitempty"`
	ClearAlarms    bool     `json:"clearAlarms,omitempty"`
}

func (r *Request) asked() asked {
	a := asked{
		r.Name, r.DataDir, r.WALDir, r.OutputDir, r.InitialCluster, r.Token, r.PeerURLs, r.BumpRevision, r.ClearAlarms,
	}
	for _, dir := range []*string{&a.DataDir, &a.WALDir, &a.OutputDir} {
		if abs, err := filepath.Abs(*dir); err == nil && *dir != "" {
			*dir = abs
		}
	}
	return a
}

func (a asked) equal(b asked) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX == nil && errY == nil && string(x) == string(y)
}

const (
	journalName = "journal.json"
	pointerName = "journal-is-in"
)

// journal plans how everything built is put into place.
func (p *Plan) journal(now time.Time) (*journal, error) {
	j := &journal{Source: p.Source.Name, Token: p.Token, ClusterID: p.ClusterID, Asked: p.req.asked()}
	stamp, err := freeStamp(p.slots(), now)
	if err != nil {
		return nil, err
	}
	for _, t := range p.Targets {
		moves, err := t.moves(stamp)
		if err != nil {
			return nil, err
		}
		j.Moves = append(j.Moves, moves...)
	}
	for _, s := range p.slots() {
		j.Dirs = append(j.Dirs, s.dir)
		j.Staging = append(j.Staging, s.staging)
	}
	return j, nil
}

// write makes the journal durable under its name in one step.
func (j *journal) write(d disk) error {
	raw, err := json.MarshalIndent(j, "", "  ")
	if err != nil {
		return fmt.Errorf("encode journal: %w", err)
	}
	if err := d.create(filepath.Join(j.Staging[0], journalName), raw); err != nil {
		return fmt.Errorf("write journal: %w", err)
	}
	return nil
}

// finish makes all moves that are not made yet, and then removes the staging
// folders.
func (j *journal) finish(d disk) error {
	for _, m := range j.Moves {
		if err := m.do(d); err != nil {
			return backup.WithHint(fmt.Errorf("put %s into place: %w", m.To, err),
				"the same command again goes on from here; what is still to be moved is listed in %s", filepath.Join(j.Staging[0], journalName))
		}
	}
	for _, m := range j.Moves {
		if _, err := os.Lstat(m.To); err != nil && !m.Away {
			return backup.WithHint(fmt.Errorf("what was built has been lost: %w", err),
				"remove %s to begin anew", j.Staging[0])
		}
		// A folder that was empty is not kept.
		if m.Aside != "" {
			if err := d.rmdir(m.Aside); err != nil {
				return err
			}
		}
	}
	return j.cleanUp(d)
}

// cleanUp removes the journal when everything else is gone, so that who is
// killed here can learn from it that the work is done.
func (j *journal) cleanUp(d disk) error {
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
		if err := d.removeAll(path); err != nil {
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

// readJournal returns the journal of which the staging folder is part. It
// returns nil when there is none: then nothing was put into place yet.
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

// absent tells that there is no such file, be it that its folder is none.
func absent(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

// trusted refuses a staging folder that somebody else may have planted, in a
// parent that everybody may write: a journal tells root what to rename.
func trusted(staging string) error {
	st, err := os.Lstat(staging)
	if err != nil {
		return fmt.Errorf("look at staging folder: %w", err)
	}
	if sys, ok := st.Sys().(*syscall.Stat_t); ok && int(sys.Uid) != os.Geteuid() {
		return &backup.RefusedError{Reason: fmt.Sprintf("staging folder %s belongs to user %d", staging, sys.Uid)}
	}
	return nil
}

// checkJournal refuses while an interrupted restore has left work to finish: its
// staging folder may hold old data.
func (s *slot) checkJournal() error {
	for _, dir := range stagings(s.dir) {
		j, err := readJournal(dir)
		if err != nil {
			return err
		}
		if j != nil {
			return backup.WithHint(&backup.RefusedError{Reason: fmt.Sprintf("a restore of %s into %s was interrupted and must be finished first", j.Source, strings.Join(j.Dirs, ", "))},
				"a restore into the same folder, not as a dry run, begins with that")
		}
	}
	return nil
}
