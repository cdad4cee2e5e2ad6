package daemon

import (
	"context"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/etcd-backupd/backupd/internal/duty"
	"github.com/etcd-backupd/backupd/internal/schedule"
	"github.com/etcd-backupd/backupd/internal/server"
)

// Outcome is the result of the backup of one cluster.
type Outcome struct {
	duty.Key
	duty.Outcome
}

// Once backs up the named clusters, or all, as a slot of the schedule would,
// and returns the result of each. A name means that cluster in every repository
// that keeps it. It is for a CronJob: it serves no HTTP, and delivers notifications
// before it returns.
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
			out[i] = Outcome{guard.Key, guard.once(ctx)}
			return nil
		})
	}
	_ = g.Wait() // each outcome has its error
	return out, nil
}

// once runs the backup as the scheduler does: with retries and a time-out.
func (g *guard) once(ctx context.Context) duty.Outcome {
	r := &run{daemon: g.daemon, key: g.Key, kind: kindBackup, began: time.Now().Round(0)}
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

// chosen returns the guards of the named clusters, or all.
func (d *Daemon) chosen(names []string) ([]*guard, error) {
	all := d.all()
	if len(names) == 0 {
		return all, nil
	}
	var out []*guard
	for _, name := range names {
		found := false
		for _, g := range all {
			if g.Cluster != name {
				continue
			}
			found = true
			if !slices.Contains(out, g) {
				out = append(out, g)
			}
		}
		if !found {
			return nil, fmt.Errorf("cluster %s: %w", name, server.ErrNotFound)
		}
	}
	return out, nil
}
