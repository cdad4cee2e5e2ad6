package duty

import (
	"context"
	"errors"

	"github.com/etcd-backupd/backupd/internal/repository/prune"
	"github.com/etcd-backupd/backupd/internal/retention"
)

// pruner removes old snapshots after a backup.
type pruner struct {
	*Subject
	policy retention.Policy
}

// prune removes the snapshots that the policy does not keep. Its error is
// reported, but the backup before it has succeeded all the same.
func (p *pruner) prune(ctx context.Context) *PruneOutcome {
	removed, err := p.pruneNow(ctx)
	switch {
	case err != nil && errors.Is(ctx.Err(), context.Canceled):
		err = nil // the next prune does the rest
	case err == nil:
		p.Known.change(func(f *Facts) { f.Pruned = p.Now() })
	default:
		p.Log.Error("prune failed", "err", err)
	}
	p.Known.change(func(f *Facts) { f.PruneErr = err })
	return &PruneOutcome{removed, err}
}

func (p *pruner) pruneNow(ctx context.Context) (removed int, err error) {
	known := p.Known.Now()
	o := known.Overview
	if o == nil { // the repository was made just now, or could not be read before
		if o, err = p.Look(ctx, p.policy); err != nil || o == nil {
			return 0, err
		}
	}
	plan, err := prune.NewPlan(o, p.policy, p.Now())
	if err != nil {
		return 0, err
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
