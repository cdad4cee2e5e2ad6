package daemon

import (
	"context"
	"errors"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/daemon/board"
	"github.com/etcd-backupd/backupd/internal/duty"
	"github.com/etcd-backupd/backupd/internal/schedule"
	"github.com/etcd-backupd/backupd/internal/server"
)

// run is one run of a job with all its tries: it does a duty, shows each try on
// the board and counts its outcome. The scheduler calls it.
type run struct {
	jobs *jobs
	key  duty.Key
	kind string
	// next is the entry on the board for the next try, where somebody has its id
	// already; nil: the try makes one. shown is that of the last try, until the job is
	// free again: who sees the end of a try may ask for another at once.
	next     *board.Job
	shown    *board.Job
	snapshot string // to verify, as somebody asked for it
	unasked  bool   // it was triggered, and not by somebody

	began   time.Time // by the clock that snapshots are begun by, or when somebody asked since
	manual  bool      // somebody asked for it
	started bool      // that a backup begins was reported
	last    duty.Outcome
}

// Try does the duty once, by the guard that the cluster has now.
func (r *run) Try(ctx context.Context, why schedule.Reason, turn *schedule.Turn) error {
	if r.unasked {
		why = schedule.CaughtUp
	}
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
	r.shown, r.last = j, duty.Outcome{Result: duty.Failed, Err: errNoResult} // should it panic
	r.last = g.do(ctx, r.kind, duty.Run{
		Why: why, Began: r.began, Started: func() { r.start(g) }, Snapshot: r.snapshot, Turn: turn.Take,
		Progress: func(stage backup.Stage, done, total int64) {
			// The inspection works long, and reports its begin and its end alone.
			turn.Moved(stage == backup.StageInspect && done < total)
			j.Progress(stage, done, total)
		},
		Trouble: func(err error) { r.jobs.reporter.notify(g, r.kind, "", err) },
	})
	if r.last.Result == duty.Paused || why == schedule.Manual && r.kind == kindBackup {
		j.Paused(pauseOf(g.Subject, g.Now()))
	}
	r.jobs.memory.keep(g.Subject) // before anybody sees the end, who may start the next run
	r.jobs.count(g, r.kind, r.last, j)
	return r.last.Err
}

var errNoResult = errors.New("it ended without a result; this is a bug of backupd")

// Free shows the end of a try.
func (r *run) Free() {
	if j := r.shown; j != nil {
		j.End(stateOf(r.last.Result), r.last.Snapshot, r.last.Err)
	}
	r.shown = nil
}

// entry puts the try on the board. An upload is a backup for everybody else.
func (r *run) entry(why schedule.Reason) *board.Job {
	if j := r.next; j != nil {
		r.next = nil
		return j
	}
	kind, reason := r.kind, why
	if kind == kindUpload {
		kind, reason = kindBackup, schedule.CaughtUp
	}
	return r.jobs.board.Begin(kind, server.Key(r.key), string(reason))
}

func stateOf(r duty.Result) string {
	switch r {
	case duty.Succeeded:
		return server.JobSucceeded
	case duty.Unconfirmed:
		return server.JobUnconfirmed
	case duty.Suspect, duty.Unaccepted:
		return server.JobSuspect
	case duty.Skipped, duty.Passed, duty.Paused:
		return server.JobSkipped
	}
	return server.JobFailed
}

func (r *run) start(g *guard) {
	if !r.started {
		r.jobs.reporter.started(g)
	}
	r.started = true
}

// Done receives the result of the last try.
func (r *run) Done(err error) {
	if r.next != nil { // its time had come to an end before its try
		r.shown, r.next = r.next, nil
		r.last = duty.Outcome{Result: duty.Failed, Err: err}
	}
	if errors.Is(err, schedule.ErrNotRun) {
		return
	}
	if g, gone := r.jobs.fleet.guard(r.key); gone == nil {
		r.jobs.reporter.ended(g, r.kind, r.last, err)
	}
}
