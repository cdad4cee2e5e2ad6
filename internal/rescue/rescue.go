// Package rescue makes one database of what is left of a cluster that has lost its quorum: of
// the data directories of its surviving members, and no backup. Their write-ahead logs are
// replayed, as far as their entries are committed, by etcd's own code onto copies of their
// databases. It says what could not be recovered, and never writes into the folders of the
// survivors.
package rescue

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/disk"
	"github.com/etcd-backupd/backupd/internal/rescue/snapfile"
)

// Uncommitted says what is done with entries at the end of a log that no survivor shows as
// committed. They may have been: a member learns of that a moment after it has the entry.
type Uncommitted string

// What can be done with entries that may be committed. Undecided is refused if such an entry
// changes something.
const (
	Undecided Uncommitted = ""
	Drop      Uncommitted = "drop"
	Take      Uncommitted = "take"
)

// Request is what a rescue works on.
type Request struct {
	Folders []Folder
	// Work is an empty folder for the copies, which nobody else can write in. The caller
	// removes it.
	Work        string
	MinFree     disk.Reserve
	Uncommitted Uncommitted
	// WithoutWAL takes the database alone where a survivor has no WAL, which is refused else:
	// acknowledged writes may be in the WAL only.
	WithoutWAL bool
	Progress   func(stage backup.Stage, done, total int64)
}

// Result is a database that was rescued.
type Result struct {
	Report
	database string // in the working folder
}

// Run copies the data of the survivors, replays their logs and chooses the one that came
// furthest. The error is a [backup.RefusedError] where a person must decide, and wraps
// [backup.ErrCorrupt] for damaged databases and for survivors that differ.
func Run(ctx context.Context, r Request) (*Result, error) {
	copies, err := r.copy(ctx)
	if err != nil {
		return nil, err
	}
	var all []*survivor
	for i, c := range copies {
		r.Progress(backup.StageInspect, int64(i), int64(len(copies)))
		s, err := c.read(ctx)
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	r.Progress(backup.StageInspect, int64(len(copies)), int64(len(copies)))
	if err := sameCluster(all); err != nil {
		return nil, err
	}
	out := &Result{Report: Report{Notes: []string{}}}
	if err := r.replay(ctx, all, &out.Report); err != nil {
		return nil, err
	}
	if out.Compared, err = compare(ctx, all); err != nil {
		return nil, err
	}
	best, err := choose(all)
	if err != nil {
		return nil, err
	}
	if err := unused(all, best); err != nil {
		return nil, err
	}
	out.database = best.db
	out.describe(all, best)
	return out, nil
}

// unused refuses a result that is behind a database which a leader has sent to one of them.
func unused(all []*survivor, best *survivor) error {
	for _, s := range all {
		if name, index := snapfile.Sent(s.snap); index > best.done.Index {
			return snapfile.Unused(filepath.Join(s.folder.snap(), name), index, best.done.Index)
		}
	}
	return nil
}

// choose returns the survivor that came furthest. One without a WAL may be of anything, so it
// is none of them, unless all are without.
func choose(all []*survivor) (best *survivor, err error) {
	for _, s := range all {
		switch {
		case best == nil, best.log.Missing && !s.log.Missing:
			best = s
		case s.log.Missing != best.log.Missing:
		case s.facts.Revision > best.facts.Revision,
			s.facts.Revision == best.facts.Revision && s.done.Index > best.done.Index:
			best = s
		}
	}
	for _, s := range all {
		if s.log.Missing && s.facts.Revision > best.facts.Revision {
			return nil, histories(best, s, "the second one is ahead, with revision %d, the first one has %d, and it has no "+
				"WAL: nothing shows which cluster and which member it is of", s.facts.Revision, best.facts.Revision)
		}
	}
	return best, nil
}

// copy copies the data of all survivors. They are held together: none starts meanwhile.
func (r Request) copy(ctx context.Context) (out []copied, err error) {
	var all []*original
	defer func() {
		for _, o := range all {
			err = errors.Join(err, o.close())
		}
	}()
	total := int64(0)
	for _, f := range r.Folders {
		inside, err := disk.Holds(f.DataDir, r.Work)
		if err != nil {
			return nil, err
		}
		if inside {
			return nil, &backup.RefusedError{Reason: fmt.Sprintf(
				"%s is in %s, and nothing is written into the data of a survivor", r.Work, f.DataDir)}
		}
		o, err := f.open()
		if err != nil {
			return nil, err
		}
		all, total = append(all, o), total+o.bytes
	}
	if err := checkLogs(all); err != nil && !r.WithoutWAL {
		return nil, err
	}
	if err := checkRoom(r.Work, r.MinFree, all); err != nil {
		return nil, err
	}
	done := int64(0)
	for i, o := range all {
		c, err := o.copy(ctx, filepath.Join(r.Work, strconv.Itoa(i)), func(n int64) {
			done += n
			r.Progress(backup.StageCopy, done, total)
		})
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, nil
}

// sameCluster refuses survivors of several clusters, and two folders of one member.
func sameCluster(all []*survivor) error {
	var first *survivor
	members := map[backup.MemberID]*survivor{}
	for _, s := range all {
		if s.log.Missing || s.log.ClusterID == 0 {
			continue // the comparison of the content has to do
		}
		if first == nil {
			first = s
		}
		if s.log.ClusterID != first.log.ClusterID {
			return backup.WithHint(&backup.RefusedError{Reason: fmt.Sprintf(
				"%s is of cluster %s, and %s is of cluster %s", first, first.log.ClusterID, s, s.log.ClusterID)},
				"give the members of one cluster only")
		}
		if other := members[s.log.MemberID]; other != nil {
			return backup.WithHint(&backup.RefusedError{Reason: fmt.Sprintf(
				"%s and %s are both the data of member %s", other.folder.DataDir, s.folder.DataDir, s.log.MemberID)},
				"give the newer one only: an older copy adds nothing")
		}
		members[s.log.MemberID] = s
	}
	return nil
}

// replay decides how far each survivor is replayed, and does it.
func (r Request) replay(ctx context.Context, all []*survivor, out *Report) error {
	var logs []known
	for _, s := range all {
		logs = append(logs, s.known())
	}
	to := reach(logs)
	out.CommittedIndex = newestCommit(logs)
	which, count := tail(logs, to)
	if count > 0 {
		t, err := r.decide(ctx, all[which], out.CommittedIndex)
		if err != nil {
			return err
		}
		if out.Uncommitted = t; t.Taken {
			to[which] = logs[which].Last
		}
	}
	for i, s := range all {
		r.Progress(backup.StagePrepare, int64(i), int64(len(all)))
		if err := s.replay(ctx, to[i]); err != nil {
			return err
		}
	}
	r.Progress(backup.StagePrepare, int64(len(all)), int64(len(all)))
	return nil
}

// decide says what becomes of the entries after what is known to be committed.
func (r Request) decide(ctx context.Context, s *survivor, committed uint64) (*Tail, error) {
	a, err := job{WAL: s.wal, From: committed, Count: true}.run(ctx)
	if err != nil {
		return nil, s.explain(fmt.Errorf("read the end of the WAL: %w", err))
	}
	t := &Tail{
		DataDir: s.folder.DataDir, From: committed + 1, Count: int64(s.log.Last - committed), Kinds: a.Kinds,
		Taken: r.Uncommitted == Take,
	}
	if r.Uncommitted == Undecided && t.changes() {
		return nil, &UndecidedError{*t}
	}
	return t, nil
}

// UndecidedError asks a person what to do with entries that may have been committed.
type UndecidedError struct{ Tail Tail }

// Error describes the entries.
func (e *UndecidedError) Error() string { return e.Unwrap().Error() }

// Unwrap returns a [backup.RefusedError].
func (e *UndecidedError) Unwrap() error {
	return &backup.RefusedError{Reason: fmt.Sprintf(
		"the log of %s ends with %s, of which no survivor shows that the cluster has committed them",
		e.Tail.DataDir, e.Tail)}
}

// Remove removes the working folder and all that is in it.
func Remove(work string) error {
	if err := os.RemoveAll(work); err != nil {
		return fmt.Errorf("remove the copies: %w", err)
	}
	return nil
}
