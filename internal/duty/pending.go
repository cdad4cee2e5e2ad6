package duty

import (
	"context"
	"fmt"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/schedule"
	"github.com/etcd-backupd/backupd/internal/snapshot"
	"github.com/etcd-backupd/backupd/internal/spool"
)

// late is what became of the pending snapshots.
type late struct {
	own      *backup.Manifest   // the snapshot of this run
	others   []*backup.Manifest // of earlier runs
	overview *repository.Overview
	err      error // why the snapshot of this run is still pending
}

func (l late) outcome(ctx context.Context, b *Backup) Outcome {
	if l.own != nil {
		return judged(ctx, b, l.own)
	}
	return failed(l.err)
}

// storePending stores the pending snapshots. A database that was received in this
// run is the snapshot of this run: while it cannot be stored, etcd is not asked
// for another one.
func (b *Backup) storePending(
	ctx context.Context, taker *snapshot.Taker, o *repository.Overview, down error, run Run,
) late {
	out := late{overview: o}
	defer func() {
		if ctx.Err() == nil {
			b.Spool.Tidy(b.Cluster, b.Known.Now().RepositoryID) // which logs what is lost
		}
	}()
	waiting, others := b.waiting()
	for _, p := range others {
		b.Log.Warn("a pending snapshot belongs to another repository", "path", p.Path, "repository", p.Repository)
	}
	if len(waiting) == 0 {
		return out
	}
	err := down
	if err == nil {
		err = run.turn(ctx)
	}
	if err == nil {
		out.sort(b.storeAll(ctx, taker, &err), func(m *backup.Manifest) bool { return b.ofThisRun(m.StartedAt, run) })
		out.overview = b.Known.Now().Overview
	}
	if out.own != nil || err == nil {
		return out
	}
	for _, p := range b.Waiting() {
		if b.ofThisRun(p.Capture.StartedAt, run) {
			out.err = fmt.Errorf("the snapshot of this run waits in the spool: %w", err)
			return out
		}
	}
	b.Log.Warn("pending snapshots are not stored yet", "err", err)
	return out
}

// sort divides the stored snapshots: the last one of this run is its own.
func (l *late) sort(stored []*backup.Manifest, ofThisRun func(*backup.Manifest) bool) {
	for _, m := range stored {
		if !ofThisRun(m) {
			l.others = append(l.others, m)
			continue
		}
		if l.own != nil {
			l.others = append(l.others, l.own)
		}
		l.own = m
	}
}

func (b *Backup) storeAll(ctx context.Context, taker *snapshot.Taker, err *error) []*backup.Manifest {
	// What is stored leaves the spool, and since the last look the repository's disk
	// may have gone away.
	in, oerr := b.Open(ctx)
	if *err = oerr; oerr != nil {
		return nil
	}
	var stored []*backup.Manifest
	stored, *err = taker.StorePending(ctx, in)
	for _, m := range stored {
		b.hold(m, "snapshot stored from the spool")
	}
	return stored
}

// ofThisRun reports whether a snapshot that was begun then is the snapshot of this
// run. A catch-up run also accepts a snapshot taken after the missed slot, even by
// a previous process.
func (b *Backup) ofThisRun(begun time.Time, run Run) bool {
	return !begun.Before(run.Began) || run.Why == schedule.CaughtUp && b.Line.Next(begun).After(b.Now())
}

// Waiting lists the pending snapshots of the cluster that are for its repository.
func (s *Subject) Waiting() []spool.Pending {
	own, _ := s.waiting()
	return own
}

// waiting lists those of the cluster that wait for another repository, too.
func (s *Subject) waiting() (own, others []spool.Pending) {
	all, err := s.Spool.Waiting()
	if err != nil {
		s.Log.Warn("cannot list the pending snapshots", "err", err)
		return nil, nil
	}
	id := s.Known.Now().RepositoryID
	for _, p := range all {
		switch {
		case p.Capture.Cluster != s.Cluster:
		case p.Repository == id:
			own = append(own, p)
		default:
			others = append(others, p)
		}
	}
	return own, others
}

// Upload stores the pending snapshots as soon as the repository is back. The next
// slot of the backup may be a day away.
func (b *Backup) Upload(ctx context.Context, run Run) Outcome {
	nothing := Outcome{Result: Passed, Reason: "no snapshot waits in the spool"}
	if len(b.Waiting()) == 0 {
		return nothing
	}
	taker, err := b.taker(run)
	if err != nil {
		return failed(err)
	}
	if err := run.turn(ctx); err != nil {
		return failed(err)
	}
	manifests := b.storeAll(ctx, taker, &err)
	switch {
	case err != nil:
		return b.settle(ctx, late{others: manifests}, failed(err))
	case len(manifests) == 0: // another process was quicker, or the spool was damaged
		return nothing
	}
	last := len(manifests) - 1
	return b.settle(ctx, late{others: manifests[:last]}, judged(ctx, b, manifests[last]))
}
