package daemon

import (
	"sync"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/schedule"
	"github.com/etcd-backupd/backupd/internal/server"
	"github.com/etcd-backupd/backupd/internal/snapshot"
)

// record is what is known of a cluster in its repository, and what is asked of
// it. A guard shares it with the one it replaces: what a run of the old one has
// still to tell must not be lost.
type record struct {
	refreshing sync.Mutex // held over a look at the repository: an older one must not have the last word

	mu       sync.Mutex // guards what follows
	standing standing
	awaited  map[string]request // on the board already, for the next manual run, by kind
	run      run
	passed   map[string]bool // kinds of jobs whose last run had nothing to do here
}

// run is a run of the backup with all its tries.
type run struct {
	began time.Time // when it was first tried, or asked for by hand since; zero: none is under way
	why   schedule.Reason
	told  bool // that it begins
}

// request is what somebody asked for by hand.
type request struct {
	job      *job
	snapshot string // to verify
}

// standing is what is known of a cluster's protection. Its times are of the wall
// clock alone: the other one stands still while the host is suspended.
type standing struct {
	since   time.Time // when guarding it began
	changed time.Time // when it was given another schedule since; zero: never

	repository string    // its id; "" while it was never reached
	read       time.Time // when the repository was last read; zero: never
	readErr    error     // why it could not be read the last time
	catalog    catalog
	newest     *backup.Manifest            // the newest verified that is good for all that is known; nil: none
	defects    map[backup.SnapshotID]error // of those that are listed

	// confirmed is the newest moment of which is known that a verified snapshot
	// holds everything the cluster had; zero: none does. protected says that it
	// ever was known.
	confirmed time.Time
	protected bool

	attempted time.Time // when a backup last began
	failed    error     // of the last backup; nil when it was good
	failing   time.Time // when the first of the runs ended that have failed since; zero: the last did not
	phases    map[string]time.Duration

	verified     time.Time // when a snapshot was last verified by us
	verification error     // what that found, or why it failed
	pruned       time.Time // when a prune last succeeded
	pruneError   error
}

// catalog is what a listing of the cluster's snapshots tells.
type catalog struct {
	verified, suspect int
	storedBytes       int64
	newest            snapshot.Entry // the newest of all but those of the future; empty: none
	missing           snapshot.Entry // the newest whose data is not there; empty: none
	clash             snapshot.Entry // the newest that shares its data with another; empty: none
	future            snapshot.Entry // the newest that lies in the future; empty: none
}

func newRecord(since time.Time) *record {
	return &record{
		awaited: map[string]request{}, passed: map[string]bool{},
		standing: standing{since: since, defects: map[backup.SnapshotID]error{}},
	}
}

// now returns what is known now.
func (r *record) now() standing {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.standing
}

// change changes what is known.
func (r *record) change(f func(*standing)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	f(&r.standing)
}

// holds notes that the repository holds m.
func (s *standing) holds(m *backup.Manifest) {
	if !m.Verified() || s.newest != nil && s.newest.StartedAt.After(m.StartedAt) {
		return
	}
	s.newest, s.protected = m, true
	if m.StartedAt.After(s.confirmed) {
		s.confirmed = m.StartedAt
	}
}

// expect sets what the next manual run of a kind is for, and returns false where
// one is awaited already.
func (r *record) expect(kind string, q request) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.awaited[kind]; ok {
		return false
	}
	r.awaited[kind] = q
	return true
}

// take takes out what the manual run of a kind is for; its job is nil where
// nobody asked.
func (r *record) take(kind string) request {
	r.mu.Lock()
	defer r.mu.Unlock()
	q := r.awaited[kind]
	delete(r.awaited, kind)
	return q
}

// giveUp ends the manual runs that were awaited and will not come.
func (r *record) giveUp(why error) {
	for _, kind := range []string{kindBackup, kindVerify} {
		if q := r.take(kind); q.job != nil {
			q.job.end(server.JobFailed, "", why)
		}
	}
}

// try notes that a backup is tried now.
func (r *record) try(why schedule.Reason, now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.standing.attempted = now
	if r.run.began.IsZero() || why == schedule.Manual && r.run.why != schedule.Manual {
		r.run.began, r.run.why = time.Now().Round(0), why // by the clock that snapshots are begun by
	}
}

// trying tells whether a run of the backup is under way, if only in a pause.
func (r *record) trying() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return !r.run.began.IsZero()
}

// pass notes that a run of a kind had nothing to do here, so that there is
// nothing to tell of it.
func (r *record) pass(kind string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.passed[kind] = true
}

// hasPassed tells once whether the last run of a kind had nothing to do here.
func (r *record) hasPassed(kind string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	defer delete(r.passed, kind)
	return r.passed[kind]
}
