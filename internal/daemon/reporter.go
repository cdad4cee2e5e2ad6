package daemon

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/duty"
	"github.com/etcd-backupd/backupd/internal/notify"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/schedule"
)

// life is the time of one [Daemon.Run].
type life struct {
	mu  sync.Mutex
	ctx context.Context // of Run; nil before
}

// begin reports whether this is the first Run.
func (l *life) begin(ctx context.Context) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ctx != nil {
		return false
	}
	l.ctx = ctx
	return true
}

// ending reports whether Run is to end.
func (l *life) ending() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ctx != nil && l.ctx.Err() != nil
}

// reporter notifies people and machines of the results of jobs.
type reporter struct {
	notifier *notify.Notifier
	hint     func(error) string
	life     *life
}

// run delivers notifications until the returned function is called. That
// function waits for the last one: what still happens while everything else ends
// is reported too. What is not delivered then is told after the next start.
func (r *reporter) run(ctx context.Context) (end func()) {
	deliveries, cancel := context.WithCancel(context.WithoutCancel(ctx))
	last := func() time.Duration { return lastDeliveries(ctx.Err() != nil) }
	var running sync.WaitGroup
	running.Go(func() { _ = r.notifier.Run(deliveries, last) }) // it ends without an error when its context does
	return func() {
		cancel()
		running.Wait()
	}
}

// lastDeliveries returns how long the last notifications may take. Who stops a container
// often kills it after ten seconds.
func lastDeliveries(stopped bool) time.Duration {
	if stopped {
		return 5 * time.Second
	}
	return 10 * time.Second
}

// ended reports the result of a run after its last try.
func (r *reporter) ended(g *guard, kind string, o duty.Outcome, err error) {
	switch {
	case o.Result == duty.Paused && err == nil: // that says nothing
	case kind == kindBackup, kind == kindUpload && o.Result != duty.Passed && (err == nil || schedule.IsPermanent(err)):
		if report, id := g.backup.Ended(o, err); report {
			r.notify(g, kindBackup, string(id), err)
		}
	case kind == kindUpload:
		// The backup has reported that the snapshot is pending.
	case o.Result != duty.Passed:
		r.notify(g, kind, "", err)
	}
}

// notify notifies of the result of a job.
func (r *reporter) notify(g *guard, kind, snapshotID string, err error) {
	if err != nil && r.life.ending() {
		return // the daemon stopped the run, and catches up after the next start
	}
	e := notify.Event{
		Job: kind, Snapshot: snapshotID, Revision: int64(backup.SnapshotID(snapshotID).Revision()),
	}
	if err != nil {
		e.Error, e.Hint = err.Error(), r.hint(err)
		if errors.As(err, new(*repository.HistoryError)) {
			e.Kind = notify.NewHistory
		}
	}
	complete(&e, g)
	r.notifier.Outcome(e)
}

// pruned notifies of the result of a prune.
func (r *reporter) pruned(g *guard, p duty.PruneOutcome) {
	if p.Stopped || r.life.ending() {
		return // the next prune does the rest
	}
	e := notify.Event{Job: "prune"}
	if p.Err != nil {
		e.Kind, e.Error, e.Hint = notify.PruneFailed, p.Err.Error(), r.hint(p.Err)
	}
	complete(&e, g)
	r.notifier.Outcome(e)
}

// started notifies that a backup begins.
func (r *reporter) started(g *guard) {
	e := notify.Event{Kind: notify.Started, Job: kindBackup}
	complete(&e, g)
	r.notifier.Notify(e)
}

// complete adds the facts that all events have.
func complete(e *notify.Event, g *guard) {
	e.Repository, e.Cluster, e.Labels, e.Time = g.Repository, g.Cluster, g.conf.Labels, time.Now().UTC()
}
