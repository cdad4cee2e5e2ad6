package daemon

import (
	"context"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/etcd-backupd/backupd/internal/duty"
	"github.com/etcd-backupd/backupd/internal/schedule"
	"github.com/etcd-backupd/backupd/internal/spool"
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
func (g *Guards) Once(ctx context.Context, names []string) ([]Outcome, error) {
	defer g.close()
	guards, err := g.fleet.named(names)
	if err != nil {
		return nil, err
	}
	defer g.jobs.reporter.run(ctx)()
	ctx, done := context.WithCancel(ctx)
	var room sync.WaitGroup
	room.Go(func() { spool.KeepRoom(ctx, g.spool) })
	defer room.Wait()
	defer done()
	out := make([]Outcome, len(guards))
	queue := schedule.NewQueue(g.fleet.config().Daemon.Concurrency)
	var running errgroup.Group
	for i, guard := range guards {
		running.Go(func() error {
			out[i] = Outcome{guard.Key, g.jobs.once(ctx, guard, queue)}
			return nil
		})
	}
	_ = running.Wait() // each outcome has its error
	return out, nil
}
