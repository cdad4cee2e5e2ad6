package daemon

import (
	"context"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/schedule"
)

// Outcome is what became of one cluster's backup.
type Outcome struct {
	Cluster  string
	Manifest *backup.Manifest // nil where none was taken
	Skipped  string           // why none was needed
	Err      error
}

// Once backs up the named clusters, or all, as a slot of the schedule would,
// and returns what became of each. It is for a CronJob: nothing listens, and
// notifications are delivered before it returns.
func (d *Daemon) Once(ctx context.Context, names []string) ([]Outcome, error) {
	defer d.close()
	guards, err := d.chosen(names)
	if err != nil {
		return nil, err
	}
	defer d.notify(ctx)()
	out := make([]Outcome, len(guards))
	var g errgroup.Group
	g.SetLimit(max(d.config().Daemon.Concurrency, 1))
	for i, guard := range guards {
		g.Go(func() error {
			out[i] = guard.once(ctx)
			return nil
		})
	}
	_ = g.Wait() // each outcome has its error
	return out, nil
}

func (d *Daemon) chosen(names []string) ([]*guard, error) {
	if len(names) == 0 {
		return d.all(), nil
	}
	var out []*guard
	for _, name := range names {
		g, err := d.find(name)
		if err != nil {
			return nil, err
		}
		if !slices.Contains(out, g) {
			out = append(out, g)
		}
	}
	return out, nil
}

// once does what the scheduler does with a job: retries, within a time.
func (g *guard) once(ctx context.Context) Outcome {
	limit := g.conf.Snapshot.Timeout
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("the run took longer than its time-out of %s", limit))
	defer cancel()
	out := Outcome{Cluster: g.conf.Name}
	pauses := schedule.NewBackoff(0)
	for try := 0; ; try++ {
		// Caught up: the CronJob may have tried before, in another process.
		out.Manifest, out.Skipped, out.Err = g.slot(ctx, schedule.CaughtUp)
		if out.Err == nil || try == g.conf.Snapshot.Retries || schedule.IsPermanent(out.Err) || !g.pause(ctx, pauses.NextBackOff(), out.Err) {
			break
		}
	}
	if out.Err != nil && ctx.Err() != nil {
		out.Err = fmt.Errorf("%w: %w", context.Cause(ctx), out.Err)
	}
	g.backupDone(g.known.hasPassed(kindBackup), out.Err)
	return out
}

// pause waits before a backup is tried again, and returns whether it is.
func (g *guard) pause(ctx context.Context, d time.Duration, err error) bool {
	if ctx.Err() != nil {
		return false
	}
	g.log.Warn("backup failed, trying again", "err", err, "pause", d.Round(time.Millisecond))
	select {
	case <-ctx.Done():
		return false
	case <-time.After(d):
		return true
	}
}
