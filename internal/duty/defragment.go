package duty

import (
	"context"

	"github.com/etcd-backupd/backupd/internal/cluster"
)

// Defragment is the duty to return the free pages of the members' databases to the
// file system.
type Defragment struct {
	*Subject
	// Threshold is the part of a database that must be free, 0 to 1.
	Threshold float64
}

// Do defragments the members whose databases have enough free pages, one after the
// other.
func (d *Defragment) Do(ctx context.Context, run Run) Outcome {
	if d.LocalEndpoint != "" {
		survey, err := d.Etcd.Survey(ctx)
		if err != nil {
			return failed(err)
		}
		other, err := d.elsewhere(ctx, survey, run.Why)
		if err != nil {
			return failed(err)
		}
		if other != "" {
			d.Log.Info("nothing to do", "reason", other)
			return Outcome{Result: Passed, Reason: other}
		}
	}
	report, err := d.Etcd.Defragment(ctx, cluster.DefragOptions{Threshold: d.Threshold})
	d.Log.Info("defragmentation ended", "report", report, "err", err)
	if err != nil {
		return failed(err)
	}
	return Outcome{Result: Succeeded}
}
