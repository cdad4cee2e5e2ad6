package daemon

import (
	"context"
	"errors"
	"time"

	"github.com/etcd-backupd/backupd/internal/duty"
	"github.com/etcd-backupd/backupd/internal/schedule"
)

// run is one run of a job with all its tries: it does a duty, shows each try on
// the board and counts its outcome. The scheduler calls it.
type run struct {
	jobs *jobs
	key  duty.Key
	kind string
	// next is the entry on the board for the next try, where somebody has its id
	// already; nil: the try makes one.
	next     *job
	snapshot string // to verify, as somebody asked for it

	began   time.Time // by the clock that snapshots are begun by, or when somebody asked since
	manual  bool      // somebody asked for it
	started bool      // that a backup begins was reported
	last    duty.Outcome
}

// Try does the duty once, by the guard that the cluster has now.
func (r *run) Try(ctx context.Context, why schedule.Reason) error {
	g, err := r.jobs.fleet.enter(r.key)
	if err != nil {
		return err
	}
	defer g.leave()
	if r.kind == kindUpload && !r.jobs.uploads(g) {
		r.last = duty.Outcome{Result: duty.Passed}
		return nil
	}
	if asked := why == schedule.Manual && !r.manual; r.began.IsZero() || asked {
		r.began, r.manual = time.Now().Round(0), why == schedule.Manual
	}
	j := r.entry(why)
	defer j.abandon()
	r.last = g.do(ctx, r.kind, duty.Run{
		Why: why, Began: r.began, Progress: j.progress, Started: func() { r.start(g) }, Snapshot: r.snapshot,
	})
	j.end(r.last)
	r.jobs.count(g, r.kind, r.last, j)
	return r.last.Err
}

// entry puts the try on the board. An upload is a backup for everybody else.
func (r *run) entry(why schedule.Reason) *job {
	if j := r.next; j != nil {
		r.next = nil
		return j
	}
	kind, reason := r.kind, why
	if kind == kindUpload {
		kind, reason = kindBackup, schedule.CaughtUp
	}
	return r.jobs.board.begin(kind, r.key, string(reason))
}

func (r *run) start(g *guard) {
	if !r.started {
		r.jobs.reporter.started(g)
	}
	r.started = true
}

// Done receives the result of the last try.
func (r *run) Done(err error) {
	if r.next != nil {
		r.next.end(duty.Outcome{Result: duty.Failed, Err: err})
	}
	if errors.Is(err, schedule.ErrNotRun) {
		return
	}
	if g, gone := r.jobs.fleet.guard(r.key); gone == nil {
		r.jobs.reporter.ended(g, r.kind, r.last, err)
	}
}
