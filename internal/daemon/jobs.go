package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/etcd-backupd/backupd/internal/config"
	"github.com/etcd-backupd/backupd/internal/daemon/board"
	"github.com/etcd-backupd/backupd/internal/daemon/counters"
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
	board     *board.Board
	metrics   *counters.Counters
	reporter  *reporter
	memory    *memory
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

// of returns the jobs of one guard. The scheduler never runs two of them at once, but for
// verifications, which need no etcd: they run beside the others, and delay none.
func (s *jobs) of(g *guard) []schedule.Job {
	backup := s.job(g, kindBackup, g.backup.Line)
	backup.Jitter, backup.Retries = g.conf.Snapshot.Jitter, g.conf.Snapshot.Retries
	fleet, key := s.fleet, g.Key
	// The guard is found again: a reload may have replaced it.
	last := func(done func(*guard, context.Context) (time.Time, error)) func(context.Context) (time.Time, error) {
		return func(ctx context.Context) (time.Time, error) {
			g, err := fleet.guard(key)
			if err != nil {
				return time.Time{}, err
			}
			return done(g, ctx)
		}
	}
	backup.Last = last(func(g *guard, ctx context.Context) (time.Time, error) { return g.backup.LastDone(ctx) })
	verify := s.job(g, kindVerify, g.verifyLine) // also by hand
	verify.Aside = true
	if !g.verifyLine.IsZero() {
		verify.Last = last(func(g *guard, ctx context.Context) (time.Time, error) { return g.verify.LastDone(ctx) })
	}
	out := []schedule.Job{
		backup,
		s.job(g, kindUpload, schedule.Line{}), // triggered when snapshots are pending
		verify,
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
		Name: jobName(kind, key), Group: key.String(), Lane: key.Repository, Line: line,
		Timeout: g.conf.Snapshot.Timeout,
		New:     func() schedule.Run { return &run{jobs: s, key: key, kind: kind} },
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
	_, err := g.Look(ctx, g.backup.Policy)
	s.memory.keep(g.Subject)
	if err != nil {
		return // the knowledge has the error
	}
	if duty.Late(&g.backup) {
		run := &run{jobs: s, key: g.Key, kind: kindBackup, unasked: true}
		// If it runs already, or cannot be started now, the next slot makes up for it.
		_ = s.scheduler.Trigger(jobName(kindBackup, g.Key), func(before schedule.Run) schedule.Run {
			if before != nil {
				return before // it pauses between two tries
			}
			return run
		})
	}
	if len(g.backup.Waiting()) == 0 {
		return
	}
	err = s.scheduler.Trigger(jobName(kindUpload, g.Key), nil)
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
	var j *board.Job
	err := s.scheduler.Trigger(jobName(kind, key), func(before schedule.Run) schedule.Run {
		// It was accepted: only now it is put on the board, so that nobody sees a job that
		// never was.
		j = s.board.Begin(kind, server.Key(key), string(schedule.Manual))
		if g, err := s.fleet.guard(key); err == nil && kind == kindBackup {
			j.Paused(pauseOf(g.Subject, g.Now()))
		}
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
		return j.Current(), nil
	}
	if errors.Is(err, schedule.ErrRunning) {
		err = fmt.Errorf("%w: %w", server.ErrConflict, err)
	}
	return server.Job{}, fmt.Errorf("start %s of %s: %w", kind, key, err)
}

// once runs the backup of a guard as the scheduler does: with retries and a
// time-out.
func (s *jobs) once(ctx context.Context, g *guard, queue *schedule.Queue) duty.Outcome {
	r := &run{jobs: s, key: g.Key, kind: kindBackup, began: time.Now().Round(0)}
	var ended error // in a pause
	err := schedule.Tries{Retries: g.conf.Snapshot.Retries, Timeout: g.conf.Snapshot.Timeout}.Do(ctx,
		func(ctx context.Context) error {
			turn, err := queue.Enter(ctx, g.Key.String(), g.Repository)
			if err != nil {
				return err
			}
			defer turn.Leave()
			// A catch-up run: the CronJob may have tried before, in another process.
			err = r.Try(ctx, schedule.CaughtUp, turn)
			if errors.As(err, new(*config.Error)) {
				err = schedule.Permanent(err) // nobody puts a file right while a CronJob waits
			}
			return err
		},
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
	r.Free()
	r.last.Err = cmp.Or(err, duty.Passing(&g.backup, r.last))
	return r.last
}

// count counts the outcome of one try.
func (s *jobs) count(g *guard, kind string, o duty.Outcome, j *board.Job) {
	k := server.Key(g.Key)
	switch kind {
	case kindBackup, kindUpload:
		for _, m := range o.Late {
			s.metrics.Stored(k, m)
		}
		switch {
		case o.Manifest != nil:
			s.metrics.Stored(k, o.Manifest)
		case kind == kindUpload: // the backup was counted when it was tried
		case o.Result == duty.Skipped || o.Result == duty.Passed || o.Result == duty.Paused:
			s.metrics.Skipped(k)
		default:
			s.metrics.Failed(k)
		}
		if p := o.Prune; p != nil {
			s.metrics.Pruned(k, p.Removed, p.Err)
			s.reporter.pruned(g, *p)
		}
		if kind == kindBackup && o.Manifest != nil { // an upload has not all phases
			s.board.Keep(k, j.Durations())
		}
	case kindVerify:
		if o.Result != duty.Passed {
			s.metrics.Verified(k, o.Err)
		}
	}
}
