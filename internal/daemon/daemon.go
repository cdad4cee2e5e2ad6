// Package daemon guards etcd clusters for years: it wires schedules, snapshots,
// retention, notifications and the HTTP side together. It keeps nothing but a
// spool: what it knows of the past it reads from the repositories.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/etcd-backupd/backupd/internal/config"
	"github.com/etcd-backupd/backupd/internal/duty"
	"github.com/etcd-backupd/backupd/internal/notify"
	"github.com/etcd-backupd/backupd/internal/schedule"
	"github.com/etcd-backupd/backupd/internal/server"
)

// Version is what the daemon tells of itself.
type Version struct {
	Tool     string // as in manifests
	Version  string
	Revision string
	Go       string
}

// Options are what a daemon is made of.
type Options struct {
	Config *config.Config
	// Path is the configuration's file, for reloads.
	Path string
	// Watcher, if not nil, tells when the file changes. It was made before the
	// file was read, so that no change is missed.
	Watcher *config.Watcher
	Version Version
	// Hint tells what a person can do about an error, or "".
	Hint func(error) string
	Log  *slog.Logger
	// Now tells the time by which protection is judged and slots come due. Nil
	// means time.Now. Pauses and time-outs run by timers all the same.
	Now func() time.Time
	// LookEvery is how often the repositories are looked at for what others did
	// there, and for whether one that was away is back. Zero means 15 minutes.
	LookEvery time.Duration
}

// Daemon guards the clusters of one configuration. Its methods may be called
// concurrently; Run only once.
type Daemon struct {
	opts      Options
	log       *slog.Logger
	board     *board
	metrics   *metrics
	scheduler *schedule.Scheduler
	notifier  *notify.Notifier
	loaded    reloads
	beat      atomic.Pointer[time.Time] // when the scheduler last looked at the clock
	reloading sync.Mutex                // held over a reload: a later one must find what the one before has done

	mu     sync.Mutex // guards what a reload replaces
	conf   *config.Config
	guards []*guard
	ctx    context.Context // of Run; nil before
}

// New makes a daemon. It connects to nothing; files that the configuration
// names must be readable.
func New(ctx context.Context, o Options) (*Daemon, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Hint == nil {
		o.Hint = func(error) string { return "" }
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.LookEvery <= 0 {
		o.LookEvery = refreshEvery
	}
	d := &Daemon{opts: o, log: o.Log, board: newBoard()}
	d.metrics = newMetrics(d)
	d.loaded.succeeded(d.opts.Now())
	d.scheduler = schedule.New(max(o.Config.Daemon.Concurrency, 1), o.Log)
	d.scheduler.Beat = func() { d.beat.Store(new(d.opts.Now())) }
	d.scheduler.Wall = d.wall
	var err error
	if d.notifier, err = newNotifier(o.Config, o.Log, d.metrics); err != nil {
		return nil, err
	}
	guards, err := d.newGuards(ctx, o.Config, nil)
	if err != nil {
		return nil, err
	}
	d.replace(o.Config, guards)
	return d, nil
}

// Run guards the clusters until ctx is done, then waits for what is running to
// end: uploads are stopped and stay pending in the spool.
func (d *Daemon) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	if err := d.begin(ctx); err != nil {
		return err
	}
	defer d.close()
	srv, err := d.newServer()
	if err != nil {
		return err
	}
	defer d.notify(ctx)()

	g.Go(func() error { return d.scheduler.Run(ctx) })
	g.Go(func() error { return d.reloadOnChange(ctx) })
	g.Go(func() error { return d.refresh(ctx) })
	g.Go(func() error { return d.tellSystemd(ctx) })
	if srv != nil {
		g.Go(func() error { return srv.Run(ctx) })
	}
	err = g.Wait()
	if err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("run daemon: %w", err)
	}
	return nil
}

// notify delivers notifications until the function it returns is called, which
// waits for the last: it is told of what still happens while everything else
// ends.
func (d *Daemon) notify(ctx context.Context) (end func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var running sync.WaitGroup
	running.Go(func() { _ = d.notifier.Run(ctx) }) // it ends as it is told to
	return func() {
		cancel()
		running.Wait()
	}
}

// begin plans all jobs.
func (d *Daemon) begin(ctx context.Context) error {
	d.reloading.Lock() // one before Run may not have set its jobs yet
	defer d.reloading.Unlock()
	d.mu.Lock()
	again := d.ctx != nil
	if !again {
		d.ctx = ctx
	}
	d.mu.Unlock()
	if again {
		return errors.New("the daemon runs already")
	}
	d.beat.Store(new(d.opts.Now()))
	d.scheduler.Set(d.jobs())
	return nil
}

// Metrics serves the daemon's metrics to Prometheus.
func (d *Daemon) Metrics() http.Handler { return d.metrics.handler() }

// wall is the time by the wall clock alone: the other one stands still while the
// host is suspended.
func (d *Daemon) wall() time.Time { return d.opts.Now().Round(0) }

// stopping tells whether Run is to end.
func (d *Daemon) stopping() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.ctx != nil && d.ctx.Err() != nil
}

// Trigger runs the backups of all clusters now.
func (d *Daemon) Trigger() {
	for _, g := range d.all() {
		if err := d.scheduler.Trigger(jobName(kindBackup, g.Key), nil); err != nil {
			d.log.Warn("backup not started", "cluster", g.Cluster, "err", err)
		}
	}
}

// all returns the guards as they are now.
func (d *Daemon) all() []*guard {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.guards
}

// guard returns the guard of a key.
func (d *Daemon) guard(key duty.Key) (*guard, error) {
	for _, g := range d.all() {
		if g.Key == key {
			return g, nil
		}
	}
	return nil, fmt.Errorf("cluster %s: %w", key, server.ErrNotFound)
}

// enter returns the guard of a key, which must be left again.
func (d *Daemon) enter(key duty.Key) (*guard, error) {
	d.mu.Lock() // so that it is not replaced and retired in between
	defer d.mu.Unlock()
	for _, g := range d.guards {
		if g.Key == key && g.enter() {
			return g, nil
		}
	}
	return nil, fmt.Errorf("cluster %s is no longer guarded", key)
}

// config returns the configuration as it is now.
func (d *Daemon) config() *config.Config {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.conf
}

func (d *Daemon) close() { retire(d.all(), nil) }

// refreshEvery is how often the repositories are looked at by default.
const refreshEvery = 15 * time.Minute

// refresh keeps what is known of the repositories current.
func (d *Daemon) refresh(ctx context.Context) error {
	tick := time.NewTicker(d.opts.LookEvery)
	defer tick.Stop()
	for {
		var g errgroup.Group
		g.SetLimit(4)
		for _, guard := range d.all() {
			g.Go(func() error {
				guard.lookIn(ctx)
				return nil
			})
		}
		_ = g.Wait() // each guard keeps its own error
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
