package duty

import (
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/repository/pause"
	"github.com/etcd-backupd/backupd/internal/repository/reread"
	"github.com/etcd-backupd/backupd/internal/retention"
	"github.com/etcd-backupd/backupd/internal/snapshot/compare"
	"github.com/etcd-backupd/backupd/internal/spool"
)

// Knowledge is what is known of the protection of a cluster. Everything that works
// on the cluster or reports on it shares it. It outlives a change of the
// configuration. Its times are of the wall clock alone: the monotonic clock stops
// while the host is suspended.
type Knowledge struct {
	meter reread.Meter // of what verifications read

	looking sync.Mutex // held during a look: an older look must not overwrite a newer one

	mu    sync.Mutex // guards what follows
	facts Facts
	fresh []change // made since the current look began
	// unrecorded are defects that were found here and could not be marked in the
	// repository: no look shows them.
	unrecorded map[backup.SnapshotID]error
}

// change applies to an overview what this process did to the repository.
type change func(*repository.Overview) *repository.Overview

// Facts are what is known at one moment.
type Facts struct {
	Since   time.Time // when the cluster's protection began
	Started time.Time // when this process began to guard the cluster
	Changed time.Time // when its schedule was last changed; zero: never

	RepositoryID string               // empty while it is not known
	Read         time.Time            // when it was last read; zero: never
	ReadErr      error                // why it could not be read the last time
	ReadBefore   time.Time            // when an earlier process last read it; zero: that is not known
	Overview     *repository.Overview // nil: it was never read
	Astray       []spool.Pending      // snapshots of the cluster that wait for another repository

	// Turns are the comparisons with the members. A restart forgets those of slots that
	// were skipped.
	Turns compare.Turns

	// Lost are snapshots that this process saw, and that are gone although backupd did
	// not remove them. A restart forgets them.
	Lost []repository.Item

	// Confirmed is the newest time at which a verified snapshot is known to have
	// held everything in the cluster; zero: there is none. Protected says that
	// there ever was one.
	Confirmed time.Time
	Protected bool

	Pauses pause.Known // a restart forgets them

	Unfit error // why the files of its configuration cannot be used; nil if they can

	Hung error // why a member that is defragmented answers nothing; nil if none hangs
	// Defragmented is why the last defragmentation here failed; nil if it did not, or was
	// left to another process. A restart forgets it.
	Defragmented error

	Attempted time.Time // when a backup last began that no pause withheld
	Failed    error     // why the last try of the backup failed; nil if it succeeded
	Failing   time.Time // when the first of the current series of failed runs ended; zero: the last run succeeded

	// Verified is when a snapshot was last found whole or damaged here. The marks in the
	// overview tell that of all processes.
	Verified     time.Time
	Verification error     // the defect that the last verification here found, or why it failed
	Reread       time.Time // when that verification ended; zero: there was none
	Pruned       time.Time // when a prune last succeeded
	PruneErr     error
	// Applied is the policy by which a prune last began here, and Waiting one that waits;
	// nil: there is none. A restart forgets both.
	Applied *retention.Policy
	Waiting *Waiting

	// newest is the newest verified snapshot that an earlier process knew. What it
	// confirmed counts for as long as that snapshot does.
	newest   backup.SnapshotID
	revision backup.Revision // of newest
}

// NewKnowledge returns the knowledge of a cluster that is protected since then. id is
// the repository's, if it is known; else it is empty until a repository is reached.
func NewKnowledge(since time.Time, id string) *Knowledge {
	return &Knowledge{facts: Facts{Since: since, Started: since, RepositoryID: id}}
}

// Now returns what is known now.
func (k *Knowledge) Now() Facts {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.facts
}

// change changes what is known.
func (k *Knowledge) change(f func(*Facts)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	f(&k.facts)
}

// Reschedule notes that the schedule of the cluster was changed.
func (k *Knowledge) Reschedule(at time.Time) { k.change(func(f *Facts) { f.Changed = at }) }

// Equipped notes why the files of the cluster's configuration cannot be used, or that
// they can.
func (k *Knowledge) Equipped(err error) { k.change(func(f *Facts) { f.Unfit = err }) }

// turns returns the comparisons with the members, with those that an overview tells.
func (k *Knowledge) turns(o *repository.Overview) compare.Turns {
	k.mu.Lock()
	defer k.mu.Unlock()
	if o == nil {
		return k.facts.Turns
	}
	for _, m := range slices.Backward(o.Good) { // the oldest first
		k.facts.Turns = k.facts.Turns.Learn(&m.Capture)
	}
	if now, _ := o.Timelines.Present(); now != nil && now.Manifest != nil {
		k.facts.Turns = k.facts.Turns.Learn(&now.Manifest.Capture)
	}
	return k.facts.Turns
}

// Newest is the manifest of the newest verified snapshot, or nil.
func (f *Facts) Newest() *backup.Manifest {
	if f.Overview == nil {
		return nil
	}
	return f.Overview.Newest()
}

// LastRead is when this process or an earlier one last read the repository; zero:
// that is not known.
func (f *Facts) LastRead() time.Time {
	if f.Read.IsZero() {
		return f.ReadBefore
	}
	return f.Read
}

// begin notes that a look begins, and returns what was known before.
func (k *Knowledge) begin() Facts {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.fresh = nil
	return k.facts
}

// saw notes the result of a look. It returns the overview with the changes that
// this process made during the look.
func (k *Knowledge) saw(id string, o *repository.Overview, now time.Time) *repository.Overview {
	k.mu.Lock()
	defer k.mu.Unlock()
	// The look may have begun before a snapshot was stored or a defect was found.
	// It must not undo that.
	for _, c := range k.fresh {
		o = c(o)
	}
	o = k.withUnrecorded(o)
	k.facts.RepositoryID, k.facts.Read, k.facts.ReadErr = id, now, nil
	k.facts.saw(o, now)
	return o
}

// missed notes that snapshots were lost.
func (k *Knowledge) missed(lost []repository.Item) {
	k.change(func(f *Facts) {
		f.Lost = slices.Concat(f.Lost, lost) // others may hold the old slice
		slices.SortFunc(f.Lost, func(a, b repository.Item) int { return backup.CompareIDs(a.ID, b.ID) })
		f.Lost = slices.CompactFunc(f.Lost, func(a, b repository.Item) bool { return a.ID == b.ID })
	})
}

func (k *Knowledge) unrecordedDefects() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.unrecorded)
}

// withUnrecorded adds the defects that only this process knows. Those of snapshots
// that are gone, or marked by now, are forgotten.
func (k *Knowledge) withUnrecorded(o *repository.Overview) *repository.Overview {
	for id, defect := range k.unrecorded {
		listed := func(i repository.Item) bool { return i.ID == id && i.State().Usable() }
		if slices.ContainsFunc(o.Items, listed) {
			o = o.Judged(id, defect)
		} else {
			delete(k.unrecorded, id)
		}
	}
	return o
}

func (f *Facts) saw(o *repository.Overview, now time.Time) {
	before := f.Newest()
	f.Overview = o
	f.Lost = slices.DeleteFunc(slices.Clone(f.Lost), func(i repository.Item) bool { return o.Holds(i.ID) })
	// A snapshot that was deleted or damaged no longer counts as protection.
	s := o.Summary(now)
	newest := s.NewestVerified
	gone := before != nil && !o.Trusts(before.ID) || before == nil && f.newest != "" && !o.Trusts(f.newest)
	if newest == nil || gone || f.Confirmed.After(now.Add(backup.Skew)) {
		f.Confirmed = time.Time{}
	}
	f.newest, f.revision = "", 0 // now the overview knows
	if newest != nil {
		f.confirm(s.LastVerified)
	}
	if m := o.Newest(); m != nil {
		f.confirm(m.StartedAt)
	}
}

// confirm notes that the repository holds a verified snapshot that was begun then.
func (f *Facts) confirm(began time.Time) {
	f.Protected = true
	if began.After(f.Confirmed) {
		f.Confirmed = began
	}
}

// confirmed notes that a snapshot holds everything that the cluster had at that
// time, and reports whether it still counts: since the caller looked it may have
// been found to be gone or damaged.
func (k *Knowledge) confirmed(id backup.SnapshotID, at time.Time) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	counts := k.facts.Overview != nil && k.facts.Overview.Trusts(id)
	if counts {
		k.facts.Confirmed = at
	}
	return counts
}

// did applies a change at once, because the next look may take long.
func (k *Knowledge) did(c change, now time.Time) {
	k.fresh = append(k.fresh, c)
	if k.facts.Overview != nil {
		k.facts.saw(c(k.facts.Overview), now)
	}
}

// holds notes that the repository holds m, and whether m counts as protection.
func (k *Knowledge) holds(m *backup.Manifest, counts bool, now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.did(func(o *repository.Overview) *repository.Overview { return o.With(m, now) }, now)
	if counts {
		k.facts.confirm(m.StartedAt)
	}
}

// removed notes that snapshots were removed.
func (k *Knowledge) removed(ids []backup.SnapshotID, now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.did(func(o *repository.Overview) *repository.Overview { return o.Without(ids) }, now)
}

// judged notes the result of a verification: a defect, another error, or nil.
func (k *Knowledge) judged(id backup.SnapshotID, result verdict, now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	err := result.err()
	k.facts.Reread, k.facts.Verification = now, err
	if result.found != nil && !errors.As(err, new(*backup.DefectError)) {
		return
	}
	k.facts.Verified = now.Truncate(time.Second) // as the mark has it
	if result.mark != (backup.Key{}) {
		k.did(func(o *repository.Overview) *repository.Overview { return o.Verified(result.mark) }, now)
	}
	if result.disputed {
		return
	}
	if result.found == nil {
		err = nil // that it is whole could not be marked, but is known here
	}
	delete(k.unrecorded, id)
	if err != nil && result.unrecorded != nil {
		if k.unrecorded == nil {
			k.unrecorded = map[backup.SnapshotID]error{}
		}
		k.unrecorded[id] = err
	}
	k.did(func(o *repository.Overview) *repository.Overview { return o.Judged(id, err) }, now)
}

// verdict is the finding of a verification, the mark that says that the snapshot is whole, if
// any, and the reason why the finding could not be marked in the repository.
type verdict struct {
	found, unrecorded error
	mark              backup.Key
	disputed          bool // it is whole, and the mark of an earlier defect could not be removed
}

func (v verdict) err() error { return errors.Join(v.found, v.unrecorded) }
