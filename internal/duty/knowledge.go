package duty

import (
	"errors"
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
}

// change applies to an overview what this process did to the repository.
type change func(*repository.Overview) *repository.Overview

// Facts are what is known at one moment.
type Facts struct {
	Since   time.Time // when the cluster's protection began
	Changed time.Time // when its schedule was last changed; zero: never

	RepositoryID string               // empty while the repository was never reached
	Read         time.Time            // when it was last read; zero: never
	ReadErr      error                // why it could not be read the last time
	Overview     *repository.Overview // nil: it was never read

	// Confirmed is the newest time at which a verified snapshot is known to have
	// held everything in the cluster; zero: there is none. Protected says that
	// there ever was one.
	Confirmed time.Time
	Protected bool

	Attempted time.Time // when a backup last began
	Failed    error     // why the last run of the backup failed; nil if it succeeded
	Failing   time.Time // when the first of the current series of failed runs ended; zero: the last run succeeded

	Verified     time.Time // when a snapshot was last verified here
	Verification error     // the defect that it found, or why it failed
	Pruned       time.Time // when a prune last succeeded
	PruneErr     error
}

// NewKnowledge returns the knowledge of a cluster that is protected since then.
func NewKnowledge(since time.Time) *Knowledge { return &Knowledge{facts: Facts{Since: since}} }

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
	k.facts.RepositoryID, k.facts.Read, k.facts.ReadErr = id, now, nil
	k.facts.saw(o, now)
	return o
}

func (f *Facts) saw(o *repository.Overview, now time.Time) {
	before := f.Newest()
	f.Overview = o
	// A snapshot that was deleted or damaged no longer counts as protection.
	newest := o.Summary(now).NewestVerified
	if newest == nil || before != nil && !o.Trusts(before.ID) || f.Confirmed.After(now.Add(backup.Skew)) {
		f.Confirmed = time.Time{}
	}
	if newest != nil {
		f.confirm(newest.ID.Time())
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

// did applies a change at once, because the next look may take long.
func (k *Knowledge) did(c change) {
	k.fresh = append(k.fresh, c)
	if k.facts.Overview != nil {
		k.facts.saw(c(k.facts.Overview), k.facts.Read)
	}
}

// holds notes that the repository holds m.
func (k *Knowledge) holds(m *backup.Manifest, now time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.did(func(o *repository.Overview) *repository.Overview { return o.With(m, now) })
	if m.Verified() {
		k.facts.confirm(m.StartedAt)
	}
}

// judged notes the result of a verification: a defect, another error, or nil.
func (k *Knowledge) judged(id backup.SnapshotID, defect error, at time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.facts.Verified, k.facts.Verification = at, defect
	if defect == nil || errors.As(defect, new(*backup.DefectError)) {
		k.did(func(o *repository.Overview) *repository.Overview { return o.Judged(id, defect) })
	}
}
