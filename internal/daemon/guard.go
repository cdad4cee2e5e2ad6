package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/etcd-backupd/backupd/internal/cluster"
	"github.com/etcd-backupd/backupd/internal/codec"
	"github.com/etcd-backupd/backupd/internal/config"
	"github.com/etcd-backupd/backupd/internal/notify"
	"github.com/etcd-backupd/backupd/internal/retention"
	"github.com/etcd-backupd/backupd/internal/schedule"
	"github.com/etcd-backupd/backupd/internal/server"
	"github.com/etcd-backupd/backupd/internal/storage"
)

// Kinds of jobs.
const (
	kindBackup     = "backup"
	kindUpload     = "upload" // of what waits in the spool; a backup for everybody else
	kindVerify     = "verify"
	kindDefragment = "defragment"
)

// guard looks after one cluster as one configuration says.
type guard struct {
	daemon *Daemon
	conf   config.Cluster
	repo   config.Repository // as it was when the guard was made

	line       schedule.Line // of snapshots
	longest    time.Duration // between two slots of it; it takes milliseconds to find out
	verifyLine schedule.Line
	defragLine schedule.Line
	policy     retention.Policy
	source     *cluster.Cluster
	store      storage.Store
	identities codec.Identities
	log        *slog.Logger
	known      *record

	mu      sync.Mutex // guards what follows
	inside  int        // jobs that run
	retired bool       // the connections end with the last of them
}

// enter is called when a job begins; it returns false when none may any more.
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

// retire lets go of the guard once what it runs has ended.
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
	g.source.Close()
	// Not before: its last run still counted.
	g.daemon.forget(g.conf.Name)
}

func jobName(kind, cluster string) string { return kind + "/" + cluster }

// jobs are what the scheduler runs for this cluster, never two at once.
func (g *guard) jobs() []schedule.Job {
	backup := g.job(kindBackup, g.line, (*guard).backup)
	backup.Jitter, backup.Retries = g.conf.Snapshot.Jitter, g.conf.Snapshot.Retries
	d, name := g.daemon, g.conf.Name
	backup.Last = func(ctx context.Context) (time.Time, error) {
		g, err := d.find(name)
		if err != nil {
			return time.Time{}, err
		}
		return g.lastBackup(ctx)
	}
	jobs := []schedule.Job{
		backup,
		g.job(kindUpload, schedule.Line{}, (*guard).upload), // when something waits
		g.job(kindVerify, g.verifyLine, (*guard).verify),    // also by hand
		g.job(kindDefragment, g.defragLine, (*guard).defrag),
	}
	if g.defragLine.IsZero() {
		return jobs[:3]
	}
	return jobs
}

// job is one of the cluster's jobs. It belongs to the cluster and not to this
// guard: a reload in between must not make it end in nothing. Its time is
// bounded, because the cluster's other jobs wait for it.
func (g *guard) job(kind string, line schedule.Line, do func(*guard, context.Context, schedule.Reason) error) schedule.Job {
	d, name := g.daemon, g.conf.Name
	return schedule.Job{
		Name: jobName(kind, name), Group: name, Line: line, Timeout: g.conf.Snapshot.Timeout,
		Run: func(ctx context.Context, why schedule.Reason) error {
			g, err := d.enter(name)
			if err != nil {
				return err
			}
			defer g.leave()
			return do(g, ctx, why)
		},
		Done: func(err error) {
			if g, gone := d.find(name); gone == nil {
				g.done(kind, err)
			}
		},
	}
}

// done is told what became of a job after all its tries.
func (g *guard) done(kind string, err error) {
	switch passed := g.known.hasPassed(kind); {
	case kind == kindBackup:
		g.backupDone(passed, err)
	case kind == kindUpload && !passed && (err == nil || schedule.IsPermanent(err)):
		g.backupDone(false, err)
	case kind == kindUpload:
		// That it still waits was told by the backup.
	case !passed:
		g.outcome(kind, "", err)
	}
}

// lastBackup tells the scheduler when the cluster was last protected, by what
// the repository says: a daemon that was down knows of nothing else.
func (g *guard) lastBackup(ctx context.Context) (time.Time, error) {
	if err := g.refresh(ctx); err != nil {
		return time.Time{}, err
	}
	return g.known.now().confirmed, nil
}

// spool is the folder that databases are received in.
func (d *Daemon) spool() string {
	if folder := d.config().Daemon.Spool.Folder; folder != "" {
		return folder
	}
	return os.TempDir()
}

// outcome notifies of what became of a job.
func (g *guard) outcome(kind, snapshotID string, err error) {
	if err != nil && g.daemon.stopping() {
		return // it was told to end, and is made up for after the next start
	}
	e := notify.Event{Job: kind, Snapshot: snapshotID}
	if err != nil {
		e.Error, e.Hint = err.Error(), g.daemon.opts.Hint(err)
	}
	g.complete(&e)
	g.daemon.notifier.Outcome(e)
}

// tellStarted says that a backup begins, once for all its tries.
func (g *guard) tellStarted() {
	g.known.mu.Lock()
	told := g.known.run.told
	g.known.run.told = true
	g.known.mu.Unlock()
	if told {
		return
	}
	e := notify.Event{Kind: notify.Started, Job: kindBackup}
	g.complete(&e)
	g.daemon.notifier.Notify(e)
}

func (g *guard) complete(e *notify.Event) {
	e.Cluster, e.Labels, e.Time = g.conf.Name, g.conf.Labels, time.Now().UTC()
}

// askFor runs a job of the cluster now, as somebody wants it by hand.
func (g *guard) askFor(kind, snapshotID string) (server.Job, error) {
	d := g.daemon
	// On the board before it is triggered, so that the caller has its id.
	j := d.board.begin(kind, g.conf.Name, string(schedule.Manual))
	err := schedule.ErrRunning
	if g.known.expect(kind, request{j, snapshotID}) {
		if err = d.scheduler.Trigger(jobName(kind, g.conf.Name)); err == nil {
			return j.current(), nil
		}
		if q := g.known.take(kind); q.job == nil {
			return j.current(), nil // a run that began in this moment has it
		}
	}
	d.board.remove(j)
	if errors.Is(err, schedule.ErrRunning) {
		err = fmt.Errorf("%w: %w", server.ErrConflict, err)
	}
	return server.Job{}, fmt.Errorf("start %s of %s: %w", kind, g.conf.Name, err)
}
