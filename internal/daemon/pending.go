package daemon

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/schedule"
	"github.com/etcd-backupd/backupd/internal/server"
	"github.com/etcd-backupd/backupd/internal/snapshot"
)

// storePending stores what earlier attempts left in the spool. What was received
// in this run is the run's snapshot: it is returned when it is stored, and
// while it cannot be, etcd is not asked for it once more.
func (g *guard) storePending(ctx context.Context, taker *snapshot.Taker, down error, why schedule.Reason) (*backup.Manifest, error) {
	var stored []*backup.Manifest
	err := down
	if down == nil {
		stored, err = taker.StorePending(ctx)
	}
	g.storedLate(ctx, stored)
	var own *backup.Manifest
	for _, m := range stored {
		if own = nil; g.ofThisRun(m.StartedAt, why) {
			own = m // which slot counts
			continue
		}
		g.daemon.metrics.backup(g.conf.Name, result(m, ""), m)
	}
	if own != nil || err == nil {
		return own, nil
	}
	for _, p := range g.pending() {
		if g.ofThisRun(p.Since, why) {
			return nil, fmt.Errorf("the snapshot of this slot waits in the spool: %w", err)
		}
	}
	g.log.Warn("what waits in the spool is not stored yet", "err", err)
	return nil, nil
}

// storedLate does what follows when snapshots that waited are stored.
func (g *guard) storedLate(ctx context.Context, stored []*backup.Manifest) {
	for i, m := range stored {
		g.log.Info("snapshot stored from the spool", "snapshot", m.ID, "revision", int64(m.Revision), "verified", m.Verified())
		if i < len(stored)-1 {
			g.known.change(func(s *standing) { s.holds(m) })
			continue
		}
		g.stored(ctx, m)
	}
}

// ofThisRun tells whether a snapshot that was begun then is the one this run is
// for. A run that is made up for asks for no more than one since its slot: it
// may have been received by the process before.
func (g *guard) ofThisRun(begun time.Time, why schedule.Reason) bool {
	g.known.mu.Lock()
	defer g.known.mu.Unlock()
	if !begun.Before(g.known.run.began) {
		return true
	}
	return why == schedule.CaughtUp && g.line.Next(begun).After(g.daemon.wall())
}

// pending are the cluster's snapshots that wait in the spool for its repository.
func (g *guard) pending() []snapshot.PendingSpool {
	all, err := snapshot.Pending(g.daemon.spool())
	if err != nil {
		g.log.Warn("cannot look for what waits in the spool", "err", err)
		return nil
	}
	var out []snapshot.PendingSpool
	id := g.known.now().repository
	for _, p := range all {
		if p.Cluster == g.conf.Name && p.Repository == id {
			out = append(out, p)
		}
	}
	return out
}

// upload stores what waits in the spool as soon as the repository is seen to be
// back: the next slot may be a day away.
func (g *guard) upload(ctx context.Context, _ schedule.Reason) error {
	// A backup that pauses stores it when it is tried again.
	if g.known.trying() || len(g.pending()) == 0 {
		g.known.pass(kindUpload)
		return nil
	}
	j := g.daemon.board.begin(kindBackup, g.conf.Name, string(schedule.CaughtUp))
	defer j.abandon()
	m, err := g.uploadAll(ctx, j)
	switch {
	case errors.Is(err, backup.ErrCorrupt) && m != nil:
		j.end(server.JobSuspect, string(m.ID), err)
	case err != nil:
		j.end(server.JobFailed, "", err)
	case m == nil: // another process was quicker, or it was damaged
		g.known.pass(kindUpload)
		j.end(server.JobSkipped, "", nil)
	default:
		j.end(server.JobSucceeded, string(m.ID), nil)
	}
	return err
}

// uploadAll returns the newest that is stored now.
func (g *guard) uploadAll(ctx context.Context, j *job) (*backup.Manifest, error) {
	taker, err := g.taker(j)
	if err != nil {
		return nil, err
	}
	stored, err := taker.StorePending(ctx)
	g.storedLate(ctx, stored)
	for _, m := range stored {
		g.daemon.metrics.backup(g.conf.Name, result(m, ""), m)
	}
	if err != nil || len(stored) == 0 {
		return nil, err
	}
	m := stored[len(stored)-1]
	if !m.Verified() {
		return m, suspect(m)
	}
	return m, nil
}
