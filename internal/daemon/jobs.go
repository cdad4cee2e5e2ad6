package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/etcd-backupd/backupd/internal/duty"
	"github.com/etcd-backupd/backupd/internal/schedule"
	"github.com/etcd-backupd/backupd/internal/server"
)

// Kinds of jobs.
const (
	kindBackup     = "backup"
	kindUpload     = "upload" // of pending snapshots; reported as a backup
	kindVerify     = "verify"
	kindDefragment = "defragment"
)

func jobName(kind string, key duty.Key) string { return kind + "/" + key.String() }

// jobs are the jobs of all guards: they are scheduled, started by hand, shown on
// the board and counted.
type jobs struct {
	fleet     *fleet
	scheduler *schedule.Scheduler
	board     *board
	metrics   *metrics
	reporter  *reporter
	log       *slog.Logger
}

// all returns the jobs of all guards.
func (s *jobs) all() []schedule.Job {
	var out []schedule.Job
	for _, g := range s.fleet.all() {
		out = append(out, s.of(g)...)
	}
	return out
}

// of returns the jobs of one guard. The scheduler never runs two of them at once.
func (s *jobs) of(g *guard) []schedule.Job {
	backup := s.job(g, kindBackup, g.backup.Line)
	backup.Jitter, backup.Retries = g.conf.Snapshot.Jitter, g.conf.Snapshot.Retries
	fleet, key := s.fleet, g.Key
	backup.Last = func(ctx context.Context) (time.Time, error) {
		g, err := fleet.guard(key)
		if err != nil {
			return time.Time{}, err
		}
		return g.backup.LastDone(ctx)
	}
	out := []schedule.Job{
		backup,
		s.job(g, kindUpload, schedule.Line{}), // triggered when snapshots are pending
		s.job(g, kindVerify, g.verifyLine),    // also by hand
	}
	if !g.defragLine.IsZero() {
		out = append(out, s.job(g, kindDefragment, g.defragLine))
	}
	return out
}

// job makes one job of a guard. The run finds the guard again, because a reload may
// have replaced this one by then. It has a time-out, because the other jobs of the
// cluster wait for it.
func (s *jobs) job(g *guard, kind string, line schedule.Line) schedule.Job {
	key := g.Key
	return schedule.Job{
		Name: jobName(kind, key), Group: key.String(), Line: line, Timeout: g.conf.Snapshot.Timeout,
		New: func() schedule.Run { return &run{jobs: s, key: key, kind: kind} },
	}
}

// plan returns the states of all jobs, by name.
func (s *jobs) plan() map[string]schedule.State {
	out := map[string]schedule.State{}
	for _, st := range s.scheduler.States() {
		out[st.Name] = st
	}
	return out
}

// uploads reports whether an upload has something to do. It has nothing to do
// while a backup runs or pauses between tries, because that stores the pending
// snapshots itself.
func (s *jobs) uploads(g *guard) bool {
	return !s.plan()[jobName(kindBackup, g.Key)].Running && len(g.backup.Waiting()) > 0
}

// look looks at a guard's repository and, if it can be read, triggers the upload of
// pending snapshots.
func (s *jobs) look(ctx context.Context, g *guard) {
	if _, err := g.Look(ctx, g.backup.Policy); err != nil || len(g.backup.Waiting()) == 0 {
		return // the knowledge has the error
	}
	err := s.scheduler.Trigger(jobName(kindUpload, g.Key), nil)
	if err != nil && !errors.Is(err, schedule.ErrRunning) && ctx.Err() == nil {
		g.Log.Info("pending snapshots are stored later", "err", err)
	}
}

// backupAll starts the backups of all clusters.
func (s *jobs) backupAll() {
	for _, g := range s.fleet.all() {
		if err := s.scheduler.Trigger(jobName(kindBackup, g.Key), nil); err != nil {
			s.log.Warn("backup not started", "cluster", g.Cluster, "err", err)
		}
	}
}

// start starts a job of a cluster by hand.
func (s *jobs) start(key duty.Key, kind, snapshot string) (server.Job, error) {
	// On the board before it is triggered, so that the caller has its id.
	j := s.board.begin(kind, key, string(schedule.Manual))
	err := s.scheduler.Trigger(jobName(kind, key), func(before schedule.Run) schedule.Run {
		r := &run{jobs: s, key: key, kind: kind, next: j, snapshot: snapshot}
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
	s.board.remove(j)
	if errors.Is(err, schedule.ErrRunning) {
		err = fmt.Errorf("%w: %w", server.ErrConflict, err)
	}
	return server.Job{}, fmt.Errorf("start %s of %s: %w", kind, key, err)
}

// once runs the backup of a guard as the scheduler does: with retries and a
// time-out.
func (s *jobs) once(ctx context.Context, g *guard) duty.Outcome {
	r := &run{jobs: s, key: g.Key, kind: kindBackup, began: time.Now().Round(0)}
	var ended error // in a pause
	err := schedule.Tries{Retries: g.conf.Snapshot.Retries, Timeout: g.conf.Snapshot.Timeout}.Do(ctx,
		// A catch-up run: the CronJob may have tried before, in another process.
		func(ctx context.Context) error { return r.Try(ctx, schedule.CaughtUp) },
		func(ctx context.Context, pause time.Duration, err error) bool {
			g.Log.Warn("backup failed, trying again", "err", err, "pause", pause.Round(time.Millisecond))
			again := schedule.Sleep(ctx, pause, err)
			ended = context.Cause(ctx)
			return again
		})
	if err != nil && ended != nil {
		err = fmt.Errorf("%w: %w", ended, err)
	}
	r.Done(err)
	r.last.Err = err
	return r.last
}

// count counts the outcome of one try.
func (s *jobs) count(g *guard, kind string, o duty.Outcome, j *job) {
	switch kind {
	case kindBackup, kindUpload:
		for _, m := range o.Late {
			s.metrics.backup(g.Key, m)
		}
		if kind == kindBackup || o.Manifest != nil {
			s.metrics.outcome(g.Key, o)
		}
		if o.Prune != nil {
			s.metrics.prune(g.Key, *o.Prune)
		}
		if kind == kindBackup && o.Manifest != nil { // an upload has not all phases
			s.board.keep(g.Key, j.durations())
		}
	case kindVerify:
		s.metrics.verification(g.Key, o)
	}
}
