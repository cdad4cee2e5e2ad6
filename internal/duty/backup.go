package duty

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/cluster"
	"github.com/etcd-backupd/backupd/internal/codec"
	"github.com/etcd-backupd/backupd/internal/history"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/retention"
	"github.com/etcd-backupd/backupd/internal/schedule"
	"github.com/etcd-backupd/backupd/internal/snapshot"
)

// Backup keeps a verified snapshot of the cluster as it is now.
type Backup struct {
	*Subject
	Line schedule.Line
	// Longest is the longest time between two slots, Jitter the most that one is
	// delayed.
	Longest, Jitter time.Duration
	// MaxAge is how old the newest snapshot may get, even if nothing changes.
	MaxAge time.Duration
	Policy retention.Policy
	Hashes snapshot.HashPolicy
	// Codec says how new snapshots are encoded. It is asked each time: recipients
	// come and go.
	Codec func() (codec.Options, error)
	Tool  string
}

// Do is one try to have a verified snapshot of the cluster as it is now. A try that
// fails is known at once: the next one may be far away.
func (b *Backup) Do(ctx context.Context, run Run) Outcome {
	b.Known.change(func(f *Facts) { f.Attempted = b.Now() })
	o := b.do(ctx, run)
	b.Known.change(func(f *Facts) { f.Failed = o.Err })
	return o
}

func (b *Backup) do(ctx context.Context, run Run) Outcome {
	overview, down := b.Look(ctx, b.Policy)
	if ctx.Err() != nil {
		return failed(context.Cause(ctx))
	}
	if down != nil {
		// Not an end: the database can be received and kept until the store is back.
		b.Log.Warn("repository cannot be read", "err", down)
	}
	taker, err := b.taker(run)
	if err != nil {
		return failed(err)
	}
	// Pending spools are stored first. That needs no etcd, and a spool belongs to
	// this daemon even when another sidecar takes the snapshot.
	late := b.storePending(ctx, taker, overview, down, run)
	if late.own != nil || late.err != nil {
		return b.settle(ctx, late, late.outcome())
	}
	return b.settle(ctx, late, b.take(ctx, taker, late.overview, down, run))
}

// take takes a snapshot unless there is a reason not to.
func (b *Backup) take(
	ctx context.Context, taker *snapshot.Taker, overview *repository.Overview, down error, run Run,
) Outcome {
	survey, err := b.Etcd.Survey(ctx)
	if err != nil {
		return failed(err)
	}
	// Also where another sidecar works: what it finds is true here, too.
	current := down == nil && b.unchanged(overview, survey, b.Now()) &&
		b.Known.confirmed(overview.Newest().ID, b.Now())
	other, err := b.elsewhere(ctx, survey, run.Why)
	switch {
	case err != nil:
		return failed(err)
	case other != "":
		return Outcome{Result: Passed, Reason: other}
	case current && run.Why != schedule.Manual:
		return Outcome{Result: Skipped, Reason: fmt.Sprintf(
			"the revision is %d as in the newest verified snapshot", survey.HighWater)}
	}
	to, err := b.target(ctx, overview, down)
	if err != nil {
		return failed(err)
	}
	if run.Started != nil {
		run.Started()
	}
	snapshot.LogSurvey(b.Log, survey)
	m, err := taker.Take(ctx, survey, to)
	if err != nil {
		return failed(err)
	}
	b.Log.Info("snapshot stored", "snapshot", m.ID, "revision", int64(m.Revision),
		"verified", m.Verified(), "bytes", m.Stored.Bytes)
	b.Known.holds(m, b.Now())
	return stored(m)
}

// unchanged reports whether the newest verified snapshot holds everything that
// the cluster has, and will be young enough until the next slot.
func (b *Backup) unchanged(o *repository.Overview, survey *cluster.Survey, now time.Time) bool {
	if o == nil {
		return false
	}
	m, newest := o.Newest(), o.Summary(now).Newest
	return m != nil && newest.State() == backup.Verified && history.Unchanged(m, survey.Position()) &&
		b.Line.Next(now).Sub(m.StartedAt) <= b.MaxAge
}

// target is where a snapshot goes: into a repository that is made if there was
// none, or into the spool while a known one is down.
func (b *Backup) target(ctx context.Context, o *repository.Overview, down error) (snapshot.Target, error) {
	known := b.Known.Now().RepositoryID
	if down != nil {
		if known == "" || errors.Is(down, backup.ErrCorrupt) {
			return snapshot.Target{}, fmt.Errorf("open repository: %w", down)
		}
		b.Log.Warn("the repository is down, the snapshot will be kept in the spool", "err", down)
		return snapshot.Target{Cluster: repository.At(b.Store, known).Cluster(b.Cluster), Down: down}, nil
	}
	if o != nil {
		return snapshot.Target{Cluster: repository.At(b.Store, known).Cluster(b.Cluster), Previous: o.Previous}, nil
	}
	repo, err := repository.Create(ctx, b.Store)
	if err != nil {
		return snapshot.Target{}, fmt.Errorf("open repository: %w", err)
	}
	b.Known.change(func(f *Facts) { f.RepositoryID = repo.ID() })
	return snapshot.Target{Cluster: repo.Cluster(b.Cluster)}, nil
}

func (b *Backup) taker(run Run) (*snapshot.Taker, error) {
	codec, err := b.Codec()
	if err != nil {
		return nil, err
	}
	return &snapshot.Taker{
		Source: b.Etcd, Codec: codec, Spool: b.Spool, Hashes: b.Hashes, Tool: b.Tool, Log: b.Log, Progress: run.Progress,
	}, nil
}

// settle does what follows when the repository has got snapshots: it prunes, by
// the overview that is known now.
func (b *Backup) settle(ctx context.Context, late late, o Outcome) Outcome {
	o.Late = late.others
	if o.Result == Skipped || o.Result == Passed {
		b.Log.Info("nothing to do", "reason", o.Reason)
	}
	if o.Manifest != nil || len(o.Late) > 0 {
		o.Prune = b.prune(ctx)
	}
	return o
}

// prune removes what the policy says. That it fails is reported, and is no fault
// of the backup before it.
func (b *Backup) prune(ctx context.Context) *PruneOutcome {
	removed, err := b.pruneNow(ctx)
	switch {
	case err != nil && errors.Is(ctx.Err(), context.Canceled):
		err = nil // the next one does the rest
	case err == nil:
		b.Known.change(func(f *Facts) { f.Pruned = b.Now() })
	default:
		b.Log.Error("prune failed", "err", err)
	}
	b.Known.change(func(f *Facts) { f.PruneErr = err })
	return &PruneOutcome{removed, err}
}

func (b *Backup) pruneNow(ctx context.Context) (removed int, err error) {
	known := b.Known.Now()
	o := known.Overview
	if o == nil { // this snapshot made the repository, or it could not be read before
		if o, err = b.Look(ctx, b.Policy); err != nil || o == nil {
			return 0, err
		}
	}
	plan, err := o.PlanPrune(b.Policy, b.Now())
	if err != nil {
		return 0, err
	}
	result, err := repository.At(b.Store, known.RepositoryID).Cluster(b.Cluster).Prune(ctx, plan, b.Log)
	if len(result.Removed) > 0 {
		b.Known.removed(result.Removed, b.Now())
	}
	return len(result.Removed), err
}

// Ended is called with the outcome of a run after its last try, whose error may
// say more than the outcome's. It reports whether somebody should hear of it: a
// run that was passed to another sidecar is a success only as far as the
// repository shows one. It may be failing there, and a success from here would
// hide that.
func (b *Backup) Ended(o Outcome, err error) (report bool, id backup.SnapshotID) {
	now := b.Now()
	b.Known.change(func(f *Facts) {
		f.Failed = err
		if newest := f.Newest(); err == nil && newest != nil {
			id = newest.ID
		}
		seen := !f.Confirmed.IsZero() && f.Confirmed.After(f.Failing) && b.overdue(f, now).Level == OK
		report = err != nil || o.Result != Passed || seen
		switch {
		case err != nil && f.Failing.IsZero():
			f.Failing = now
		case err == nil && report:
			f.Failing = time.Time{}
		}
	})
	return report, id
}

// LastDone returns when the cluster was last protected, by what the repository
// says: a daemon that was down knows of nothing else.
func (b *Backup) LastDone(ctx context.Context) (time.Time, error) {
	if _, err := b.Look(ctx, b.Policy); err != nil {
		return time.Time{}, err
	}
	return b.Known.Now().Confirmed, nil
}
