package duty

import (
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/repository"
)

// Knowledge is what is known of the protection of a cluster. Everything that works
// on the cluster or reports on it shares it. It outlives a change of the
// configuration. Its times are of the wall clock alone: the monotonic clock stops
// while the host is suspended.
type Knowledge struct {
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
	Changed time.Time // when its schedule was last changed; zero: never

	RepositoryID string               // empty while it is not known
	Read         time.Time            // when it was last read; zero: never
	ReadErr      error                // why it could not be read the last time
	Overview     *repository.Overview // nil: it was never read

	// Lost are snapshots that this process saw, and that are gone although backupd did
	// not remove them. A restart forgets them.
	Lost []repository.Item

	// Confirmed is the newest time at which a verified snapshot is known to have
	// held everything in the cluster; zero: there is none. Protected says that
	// there ever was one.
	Confirmed time.Time
	Protected bool

	Attempted time.Time // when a backup last began
	Failed    error     // why the last try of the backup failed; nil if it succeeded
	Failing   time.Time // when the first of the current series of failed runs ended; zero: the last run succeeded

	Verified     time.Time // when a snapshot was last verified here
	Verification error     // the defect that it found, or why it failed
	Pruned       time.Time // when a prune last succeeded
	PruneErr     error
}

// NewKnowledge returns the knowledge of a cluster that is protected since then. id is
// the repository's, if it is known; else it is empty until a repository is reached.
func NewKnowledge(since time.Time, id string) *Knowledge {
	return &Knowledge{facts: Facts{Since: since, RepositoryID: id}}
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

// Newest is the manifest of the newest verified snapshot, or nil.
func (f *Facts) Newest() *backup.Manifest {
	if f.Overview == nil {
		return nil
	}
	return f.Overview.Newest()
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
	if newest == nil || before != nil && !o.Trusts(before.ID) || f.Confirmed.After(now.Add(backup.Skew)) {
		f.Confirmed = time.Time{}
	}
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
	k.facts.Verified, k.facts.Verification = now, err
	if err != nil && !errors.As(err, new(*backup.DefectError)) {
		return
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

// verdict is the finding of a verification, and the reason why it could not be
// marked in the repository.
type verdict struct{ found, unrecorded error }

func (v verdict) err() error { return errors.Join(v.found, v.unrecorded) }
