package daemon

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/etcd-backupd/backupd/internal/config"
	"github.com/etcd-backupd/backupd/internal/duty"
	"github.com/etcd-backupd/backupd/internal/notify"
	"github.com/etcd-backupd/backupd/internal/schedule"
)

// Kinds of jobs.
const (
	kindBackup     = "backup"
	kindUpload     = "upload" // of pending snapshots; reported as a backup
	kindVerify     = "verify"
	kindDefragment = "defragment"
)

// guard holds the duties of one protected cluster under one configuration.
type guard struct {
	daemon *Daemon
	conf   config.Cluster
	repo   config.Repository // as it was when the guard was made
	spool  config.Spool      // likewise

	*duty.Subject
	backup     duty.Backup
	verify     duty.Verify
	defrag     duty.Defragment
	verifyLine schedule.Line
	defragLine schedule.Line

	mu      sync.Mutex // guards what follows
	inside  int        // jobs that run
	retired bool       // the connections are closed after the last of them
}

// enter is called when a job begins. It returns false if the guard is retired.
func (g *guard) enter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.retired {
		return false
	}
	g.inside++
	return true
}

func (g *guard) leave() {
	g.mu.Lock()
	g.inside--
	last := g.inside == 0 && g.retired
	g.mu.Unlock()
	if last {
		g.close()
	}
}

// retire closes the guard after its running jobs have ended.
func (g *guard) retire() {
	g.mu.Lock()
	last := g.inside == 0 && !g.retired
	g.retired = true
	g.mu.Unlock()
	if last {
		g.close()
	}
}

func (g *guard) close() {
	_ = g.Etcd.Close() // nothing is in progress
	// Only now, because its last run still counted.
	g.daemon.forget(g.Key)
}

func jobName(kind string, key duty.Key) string { return kind + "/" + key.String() }

// jobs returns the jobs of this cluster. The scheduler never runs two of them at
// once.
func (g *guard) jobs() []schedule.Job {
	backup := g.job(kindBackup, g.backup.Line)
	backup.Jitter, backup.Retries = g.conf.Snapshot.Jitter, g.conf.Snapshot.Retries
	d, key := g.daemon, g.Key
	backup.Last = func(ctx context.Context) (time.Time, error) {
		g, err := d.guard(key)
		if err != nil {
			return time.Time{}, err
		}
		return g.backup.LastDone(ctx)
	}
	jobs := []schedule.Job{
		backup,
		g.job(kindUpload, schedule.Line{}), // triggered when snapshots are pending
		g.job(kindVerify, g.verifyLine),    // also by hand
		g.job(kindDefragment, g.defragLine),
	}
	if g.defragLine.IsZero() {
		return jobs[:3]
	}
	return jobs
}

// job makes one job of the cluster. It finds the guard when it runs, because a
// reload may have replaced this one by then. It has a time-out, because the other
// jobs of the cluster wait for it.
func (g *guard) job(kind string, line schedule.Line) schedule.Job {
	d, key := g.daemon, g.Key
	return schedule.Job{
		Name: jobName(kind, key), Group: key.String(), Line: line, Timeout: g.conf.Snapshot.Timeout,
		New: func() schedule.Run { return &run{daemon: d, key: key, kind: kind} },
	}
}

// do makes one try of a duty.
func (g *guard) do(ctx context.Context, kind string, r duty.Run) duty.Outcome {
	switch kind {
	case kindBackup:
		return g.backup.Do(ctx, r)
	case kindUpload:
		return g.backup.Upload(ctx, r)
	case kindVerify:
		return g.verify.Do(ctx, r)
	}
	return g.defrag.Do(ctx, r)
}

// uploads reports whether an upload has something to do. It has nothing to do
// while a backup runs or pauses between tries, because that stores the pending
// snapshots itself.
func (g *guard) uploads() bool {
	return !g.daemon.plan()[jobName(kindBackup, g.Key)].Running && len(g.backup.Waiting()) > 0
}

// ended reports the result of a run after its last try.
func (g *guard) ended(kind string, o duty.Outcome, err error) {
	switch {
	case kind == kindBackup, kind == kindUpload && o.Result != duty.Passed && (err == nil || schedule.IsPermanent(err)):
		if report, id := g.backup.Ended(o, err); report {
			g.notify(kindBackup, string(id), err)
		}
	case kind == kindUpload:
		// The backup has reported that the snapshot is pending.
	case o.Result != duty.Passed:
		g.notify(kind, "", err)
	}
}

// notify notifies of the result of a job.
func (g *guard) notify(kind, snapshotID string, err error) {
	if err != nil && g.daemon.stopping() {
		return // the daemon stopped the run, and catches up after the next start
	}
	e := notify.Event{Job: kind, Snapshot: snapshotID}
	if err != nil {
		e.Error, e.Hint = err.Error(), g.daemon.opts.Hint(err)
	}
	g.complete(&e)
	g.daemon.notifier.Outcome(e)
}

// started notifies that a backup begins.
func (g *guard) started() {
	e := notify.Event{Kind: notify.Started, Job: kindBackup}
	g.complete(&e)
	g.daemon.notifier.Notify(e)
}

func (g *guard) complete(e *notify.Event) {
	e.Repository, e.Cluster, e.Labels, e.Time = g.Repository, g.Cluster, g.conf.Labels, time.Now().UTC()
}

// lookIn looks at the repository and, if it can be read, triggers the upload of
// pending snapshots.
func (g *guard) lookIn(ctx context.Context) {
	if _, err := g.Look(ctx, g.backup.Policy); err != nil || len(g.backup.Waiting()) == 0 {
		return // the knowledge has the error
	}
	err := g.daemon.scheduler.Trigger(jobName(kindUpload, g.Key), nil)
	if err != nil && !errors.Is(err, schedule.ErrRunning) && ctx.Err() == nil {
		g.Log.Info("pending snapshots are stored later", "err", err)
	}
}
