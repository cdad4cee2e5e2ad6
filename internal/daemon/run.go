package daemon

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/etcd-backupd/backupd/internal/duty"
	"github.com/etcd-backupd/backupd/internal/schedule"
	"github.com/etcd-backupd/backupd/internal/server"
)

// run is one run of a job with all its tries: it does a duty, shows each try on
// the board and counts its outcome. The scheduler calls it.
type run struct {
	daemon *Daemon
	key    duty.Key
	kind   string
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
	g, err := r.daemon.enter(r.key)
	if err != nil {
		return err
	}
	defer g.leave()
	if r.kind == kindUpload && !g.uploads() {
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
	r.daemon.count(g, r.kind, r.last, j)
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
	return r.daemon.board.begin(kind, r.key, string(reason))
}

func (r *run) start(g *guard) {
	if !r.started {
		g.started()
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
	if g, gone := r.daemon.guard(r.key); gone == nil {
		g.ended(r.kind, r.last, err)
	}
}

// count counts what one try came to.
func (d *Daemon) count(g *guard, kind string, o duty.Outcome, j *job) {
	switch kind {
	case kindBackup, kindUpload:
		for _, m := range o.Late {
			d.metrics.backup(g.Key, m)
		}
		if kind == kindBackup || o.Manifest != nil {
			d.metrics.outcome(g.Key, o)
		}
		if o.Prune != nil {
			d.metrics.prune(g.Key, *o.Prune)
		}
		if kind == kindBackup && o.Manifest != nil { // an upload has not all phases
			d.board.keep(g.Key, j.durations())
		}
	case kindVerify:
		d.metrics.verification(g.Key, o)
	}
}

// askFor runs a job of a cluster now, as somebody wants it by hand.
func (d *Daemon) askFor(key duty.Key, kind, snapshot string) (server.Job, error) {
	// On the board before it is triggered, so that the caller has its id.
	j := d.board.begin(kind, key, string(schedule.Manual))
	err := d.scheduler.Trigger(jobName(kind, key), func(before schedule.Run) schedule.Run {
		r := &run{daemon: d, key: key, kind: kind, next: j, snapshot: snapshot}
		if b, ok := before.(*run); ok {
			r.started = b.started // it goes on with its tries
			if b.manual {
				// What was received since somebody asked is as good for this one.
				r.began, r.manual = b.began, true
			}
		}
		return r
	})
	if err == nil {
		return j.current(), nil
	}
	d.board.remove(j)
	if errors.Is(err, schedule.ErrRunning) {
		err = fmt.Errorf("%w: %w", server.ErrConflict, err)
	}
	return server.Job{}, fmt.Errorf("start %s of %s: %w", kind, key, err)
}
