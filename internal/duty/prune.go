package duty

import (
	"context"
	"errors"
	"reflect"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/repository/prune"
	"github.com/etcd-backupd/backupd/internal/retention"
	"github.com/etcd-backupd/backupd/internal/schedule"
)

// pruner removes old snapshots after a backup.
type pruner struct {
	*Subject
	line schedule.Line // of the slots
	// inForce returns the policy that counts at this moment, or false if none does any
	// more: a backup may take hours, and the configuration may be another one by then.
	inForce func() (retention.Policy, bool)
}

func newPruner(b *Backup) *pruner {
	p := &pruner{Subject: b.Subject, line: b.Line, inForce: b.InForce}
	if p.inForce == nil {
		p.inForce = func() (retention.Policy, bool) { return b.Policy, true }
	}
	return p
}

// prune removes the snapshots that the policy in force does not keep. Its error is
// reported, but the backup before it has succeeded all the same. It returns nil if no
// policy is in force.
func (p *pruner) prune(ctx context.Context) *PruneOutcome {
	policy, ok := p.inForce()
	if !ok {
		p.Log.Warn("nothing is pruned: the cluster was taken out of the configuration, or has another repository there")
		return nil
	}
	removed, err := p.pruneNow(ctx, policy)
	var sudden *prune.SuddenError
	switch {
	case err != nil && errors.Is(ctx.Err(), context.Canceled):
		return &PruneOutcome{Removed: removed, Stopped: true} // the next prune does the rest
	case err == nil:
		p.Known.change(func(f *Facts) { f.Pruned = p.Now() })
	case errors.As(err, &sudden):
		p.Log.Warn("retention waits", "err", err, "snapshots", sudden.Snapshots)
	default:
		p.Log.Error("prune failed", "err", err)
	}
	p.Known.change(func(f *Facts) { f.PruneErr = err })
	return &PruneOutcome{Removed: removed, Err: err}
}

func (p *pruner) pruneNow(ctx context.Context, policy retention.Policy) (removed int, err error) {
	known := p.Known.Now()
	o, before, err := p.overview(ctx, known, policy)
	if err != nil || o == nil {
		return 0, err
	}
	plan, err := prune.NewPlan(o, policy, p.Now())
	if err != nil {
		return 0, err
	}
	if err := p.wait(known, plan, before, policy); err != nil {
		return 0, err
	}
	plan.Allowed = func() error {
		if now, ok := p.inForce(); !ok || !reflect.DeepEqual(now, policy) {
			return errors.New("the configuration was changed meanwhile: the next prune goes by the new one")
		}
		return nil
	}
	// Since the look the repository's disk may have been replaced.
	repo, err := p.open(ctx, known.RepositoryID)
	if err != nil {
		return 0, err
	}
	result, err := prune.Run(ctx, repo.Cluster(p.Cluster), plan, Host("retention"), p.Log)
	if len(result.Removed) > 0 {
		p.Known.removed(result.Removed, p.Now())
	}
	return len(result.Removed), err
}

// overview returns what is known of the repository, and what the policy before would
// remove of it now; nil if it is not known. It looks again if nothing was read before,
// or not enough for both policies.
func (p *pruner) overview(
	ctx context.Context, known Facts, policy retention.Policy,
) (o *repository.Overview, before *prune.Plan, err error) {
	strict := policy
	if known.Applied != nil && prune.Vouch(*known.Applied) > prune.Vouch(policy) {
		strict = *known.Applied
	}
	o = known.Overview
	if o == nil || o.Vouched() < prune.Vouch(strict) {
		if o, err = p.Look(ctx, strict); err != nil || o == nil {
			return nil, nil, err
		}
	}
	if known.Applied != nil {
		before, err = prune.NewPlan(o, *known.Applied, p.Now())
	}
	return o, before, err
}

// Waiting is a policy that waits.
type Waiting struct {
	Policy retention.Policy
	Until  time.Time // the next slot
}

// wait decides whether the policy waits, and notes what it decides. Which policy was
// applied before is not known after a start: then any that removes so much waits.
func (p *pruner) wait(known Facts, plan, before *prune.Plan, policy retention.Policy) error {
	now := p.Now()
	gone := plan.Beyond(before)
	sudden := 2*len(gone) > len(plan.Decisions)
	waited := known.Waiting != nil && reflect.DeepEqual(known.Waiting.Policy, policy)
	if sudden && !(waited && !now.Before(known.Waiting.Until)) {
		if !waited {
			p.Known.change(func(f *Facts) { f.Waiting = &Waiting{policy, nextSlot(p.line, known.Attempted, now)} })
		}
		return backup.WithHint(&prune.SuddenError{Snapshots: gone, All: len(plan.Decisions)},
			"if they should stay, mend the retention of the cluster; 'backupd prune --config FILE --cluster %s' removes "+
				"them now, which 'backupd backup --once' leaves to you", p.Cluster)
	}
	p.Known.change(func(f *Facts) { f.Applied, f.Waiting = &policy, nil })
	return nil
}

// nextSlot returns when the slot after the present one begins. began is when the last
// backup did, which was in this slot, unless it is long ago.
func nextSlot(line schedule.Line, began, now time.Time) time.Time {
	if next := line.Next(began); next.After(now) {
		return next
	}
	return line.Next(now)
}
