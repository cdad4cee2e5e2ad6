package daemon

import (
	"context"
	"time"

	"github.com/etcd-backupd/backupd/internal/config"
	"github.com/etcd-backupd/backupd/internal/daemon/board"
	"github.com/etcd-backupd/backupd/internal/daemon/counters"
	"github.com/etcd-backupd/backupd/internal/duty"
	"github.com/etcd-backupd/backupd/internal/openfiles"
	"github.com/etcd-backupd/backupd/internal/record"
	"github.com/etcd-backupd/backupd/internal/schedule"
	"github.com/etcd-backupd/backupd/internal/server"
)

// Guards protect the clusters of one configuration: what a daemon runs by schedule,
// and one slot of a CronJob runs once.
type Guards struct {
	opts    Options
	fleet   *fleet
	jobs    *jobs
	builder *builder
	life    *life
}

// NewGuards makes the guards of a configuration. It connects to nothing; files that
// the configuration names must be readable.
func NewGuards(ctx context.Context, o Options) (*Guards, error) {
	o.setDefaults()
	life, fleet, metrics := &life{}, &fleet{}, counters.New()
	notifier, err := newNotifier(o.Config, o.Log, metrics)
	if err != nil {
		return nil, err
	}
	// The time of the wall clock alone: the monotonic clock stops while the host is
	// suspended.
	wall := func() time.Time { return o.Now().Round(0) }
	memory := &memory{
		fleet: fleet, notifier: notifier, wall: wall, log: o.Log, written: map[duty.Key]record.Record{},
	}
	notifier.Delivered = memory.told
	g := &Guards{
		opts: o, fleet: fleet, life: life,
		jobs: &jobs{
			fleet: fleet, scheduler: schedule.New(max(o.Config.Daemon.Concurrency, 1), o.Log), board: board.New(),
			metrics: metrics, reporter: &reporter{notifier: notifier, hint: o.Hint, life: life}, log: o.Log,
			memory: memory,
		},
		builder: &builder{
			wall: wall, memory: memory, inForce: fleet.policy, tool: o.Version.Tool, log: o.Log, observe: metrics.Store,
			trace: o.Trace,
			files: openfiles.New(openfiles.Limit()),
			closed: func(k duty.Key) {
				if _, err := fleet.guard(k); err != nil { // it is protected no longer
					metrics.Forget(server.Key(k))
				}
			},
		},
	}
	guards, err := g.builder.guards(o.Config, nil)
	if err != nil {
		return nil, err
	}
	g.use(o.Config, guards)
	memory.remind()
	return g, nil
}

// use makes a configuration with its guards the current one, and returns the
// guards before.
func (g *Guards) use(conf *config.Config, guards []*guard) (before []*guard) {
	for _, guard := range guards {
		g.jobs.metrics.Prepare(server.Key(guard.Key))
		if err := guard.Known.Now().Unfit; err != nil {
			g.jobs.reporter.notify(guard, kindBackup, "", err) // its next slot may be a day away
		}
	}
	return g.fleet.replace(conf, guards, g.builder.wall())
}

func (g *Guards) close() { retire(g.fleet.all(), nil) }
