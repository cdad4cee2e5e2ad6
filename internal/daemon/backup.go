package daemon

import (
	"context"
	"fmt"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/cluster"
	"github.com/etcd-backupd/backupd/internal/schedule"
	"github.com/etcd-backupd/backupd/internal/server"
	"github.com/etcd-backupd/backupd/internal/snapshot"
)

// backup is the job of the scheduler.
func (g *guard) backup(ctx context.Context, why schedule.Reason) error {
	_, _, err := g.slot(ctx, why)
	return err
}

// slot is one attempt to have a verified snapshot of the cluster as it is now.
// It returns what was taken, or why nothing was needed.
func (g *guard) slot(ctx context.Context, why schedule.Reason) (*backup.Manifest, string, error) {
	j := g.begin(why)
	defer j.abandon()
	m, skipped, err := g.attempt(ctx, j, why)
	switch {
	case err != nil:
		j.end(server.JobFailed, "", err)
	case skipped != "":
		g.log.Info("nothing to do", "reason", skipped)
		j.end(server.JobSkipped, "", nil)
	case !m.Verified():
		err = suspect(m)
		j.end(server.JobSuspect, string(m.ID), err)
	default:
		j.end(server.JobSucceeded, string(m.ID), nil)
	}
	g.keep(j, m, skipped, err)
	return m, skipped, err
}

// suspect is the error of a snapshot that is stored, but in doubt. Another
// attempt would store the same doubts once more.
func suspect(m *backup.Manifest) error {
	return schedule.Permanent(backup.WithHint(backup.Corruptf("snapshot %s is stored, but suspect: %s", m.ID, m.Suspect[0]),
		"keep older snapshots; find out which member is right (etcdctl endpoint hashkv --cluster)"))
}

// begin puts the attempt on the board.
func (g *guard) begin(why schedule.Reason) *job {
	g.known.try(why, g.daemon.wall())
	if why == schedule.Manual {
		if q := g.known.take(kindBackup); q.job != nil {
			return q.job
		}
	}
	return g.daemon.board.begin(kindBackup, g.conf.Name, string(why))
}

// attempt takes a snapshot unless there is a reason not to, which it returns.
func (g *guard) attempt(ctx context.Context, j *job, why schedule.Reason) (m *backup.Manifest, skipped string, err error) {
	down := g.refresh(ctx)
	if down != nil {
		// Not an end: the database can be received and kept until the store is back.
		g.log.Warn("repository cannot be read", "err", down)
	}
	taker, err := g.taker(j)
	if err != nil {
		return nil, "", err
	}
	// What waits in the spool needs no etcd, and is this daemon's whoever works.
	if m, err := g.storePending(ctx, taker, down, why); m != nil || err != nil {
		return m, "", err
	}
	survey, err := g.source.Survey(ctx)
	if err != nil {
		return nil, "", err
	}
	current := g.unchanged(survey)
	if g.conf.LocalEndpoint != "" && why != schedule.Manual {
		switch other, err := g.worker(ctx, survey); {
		case err != nil:
			return nil, "", err
		case other != "":
			g.known.pass(kindBackup)
			return nil, other, nil
		}
	}
	if current && why != schedule.Manual {
		return nil, fmt.Sprintf("the revision is %d as in the newest verified snapshot", survey.HighWater), nil
	}
	g.tellStarted()
	m, err = taker.Take(ctx)
	if err != nil {
		return nil, "", err
	}
	g.log.Info("snapshot stored", "snapshot", m.ID, "revision", int64(m.Revision), "verified", m.Verified(), "bytes", m.Stored.Bytes)
	g.stored(ctx, m)
	return m, "", nil
}

// stored does what follows when the repository has got a snapshot.
func (g *guard) stored(ctx context.Context, m *backup.Manifest) {
	// Known at once, also where the repository is too slow to be read.
	g.known.change(func(s *standing) { s.holds(m) })
	_ = g.refresh(ctx) // kept in the standing; the backup exists
	if g.prune(ctx) > 0 {
		_ = g.refresh(ctx)
	}
}

// unchanged tells whether the newest verified snapshot holds all keys that the
// cluster has, and will be young enough to stand for it until the next slot.
func (g *guard) unchanged(survey *cluster.Survey) bool {
	g.known.mu.Lock()
	defer g.known.mu.Unlock()
	s, now := &g.known.standing, g.daemon.wall()
	if s.readErr != nil || s.newest == nil || s.newest.ClusterID != survey.ClusterID || s.newest.Revision != survey.HighWater {
		return false
	}
	if s.catalog.newest.Suspect || g.line.Next(now).Sub(s.newest.StartedAt) > g.conf.Snapshot.MaxAge {
		return false
	}
	s.confirmed = now
	return true
}

// worker returns why this slot is another daemon's, or "".
func (g *guard) worker(ctx context.Context, survey *cluster.Survey) (string, error) {
	id := cluster.Worker(survey)
	if id == 0 {
		return "", nil // no member stands out, so all work rather than none
	}
	own, err := g.source.Identify(ctx, g.conf.LocalEndpoint)
	if err != nil {
		return "", backup.WithHint(fmt.Errorf("ask the member beside this daemon who it is: %w", err), "local-endpoint must be a client URL of the etcd member beside this daemon")
	}
	if id != own {
		return fmt.Sprintf("this slot belongs to the daemon beside member %s", id), nil
	}
	return "", nil
}

func (g *guard) taker(j *job) (*snapshot.Taker, error) {
	// Read again each time: recipients come and go without a reload.
	codec, err := g.repo.Codec()
	if err != nil {
		return nil, err
	}
	t := &snapshot.Taker{
		Source: g.source, Store: g.store, Cluster: g.conf.Name, Codec: codec, Tool: g.daemon.opts.Version.Tool,
		Spool: g.daemon.spool(), SpoolLimit: g.daemon.config().Daemon.Spool.MaxBytes, KeepPending: true,
		Repository: g.known.now().repository, // what is received while the store is down waits for that one and no other
		Log:        g.log, Progress: j.progress,
	}
	if !g.conf.Snapshot.HashCheck {
		t.Hashes = snapshot.SkipHashes
	}
	return t, nil
}

// keep keeps what an attempt told.
func (g *guard) keep(j *job, m *backup.Manifest, skipped string, err error) {
	g.daemon.metrics.backup(g.conf.Name, result(m, skipped), m)
	g.known.change(func(s *standing) {
		s.failed = err
		if m != nil {
			s.phases = j.durations()
		}
	})
}

// result is what became of an attempt, for metrics.
func result(m *backup.Manifest, skipped string) string {
	switch {
	case m != nil && m.Verified():
		return "verified"
	case m != nil:
		return "suspect"
	case skipped != "":
		return "skipped"
	}
	return "failed"
}

// backupDone is told what became of a backup after all its tries. One that was
// passed to another daemon is a success only as far as the repository shows
// one: it may be failing there, and a success from here would hide that.
func (g *guard) backupDone(passed bool, err error) {
	g.known.mu.Lock()
	g.known.run = run{}
	s := &g.known.standing
	s.failed = err
	id := ""
	if err == nil && s.newest != nil {
		id = string(s.newest.ID)
	}
	seen := !s.confirmed.IsZero() && s.confirmed.After(s.failing) && g.overdue(s, g.daemon.wall()).state == ""
	tell := err != nil || !passed || seen
	switch {
	case err != nil && s.failing.IsZero():
		s.failing = g.daemon.wall()
	case err == nil && tell:
		s.failing = time.Time{}
	}
	g.known.mu.Unlock()
	if tell {
		g.outcome(kindBackup, id, err)
	}
}
