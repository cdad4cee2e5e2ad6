// Package daemon protects etcd clusters for years. It wires schedules, duties,
// notifications and the HTTP server together. It stores nothing but spools: it
// reads the past from the repositories.
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

// Version is the version that the daemon reports.
type Version struct {
	Tool     string // as in manifests
	Version  string
	Revision string
	Go       string
}

// Options configure a daemon.
type Options struct {
	Config *config.Config
	// Path is the configuration's file, for reloads.
	Path string
	// Watcher, if not nil, reports changes of the file. It was made before the
	// file was read, so that no change is missed.
	Watcher *config.Watcher
	Version Version
	// Hint returns what a person can do about an error, or "".
	Hint func(error) string
	Log  *slog.Logger
	// Now returns the time by which protection is judged and slots come due. Nil
	// means time.Now. Pauses and time-outs use timers instead.
	Now func() time.Time
	// LookEvery is the time between two looks at each repository. A look finds
	// what others did there, and whether a store that was down is back. Zero means
	// 15 minutes.
	LookEvery time.Duration
}

// Daemon protects the clusters of one configuration. Its methods may be called
// concurrently, Run only once.
type Daemon struct {
	opts      Options
	log       *slog.Logger
	board     *board
	metrics   *metrics
	scheduler *schedule.Scheduler
	notifier  *notify.Notifier
	loaded    reloads
	beat      atomic.Pointer[time.Time] // when the scheduler last looked at the clock
	reloading sync.Mutex                // held during a reload: a later one must see the result of the earlier one

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

// Run protects the clusters until ctx is done. Then it waits for the running jobs
// to end: uploads are stopped, and their snapshots stay pending in the spool.
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

// notify delivers notifications until the returned function is called. That
// function waits for the last one: what still happens while everything else ends
// is reported too.
func (d *Daemon) notify(ctx context.Context) (end func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var running sync.WaitGroup
	running.Go(func() { _ = d.notifier.Run(ctx) }) // it ends without an error when its context does
	return func() {
		cancel()
		running.Wait()
	}
}

// begin plans all jobs.
func (d *Daemon) begin(ctx context.Context) error {
	d.reloading.Lock() // a reload before Run may not have set its jobs yet
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

// wall returns the time of the wall clock alone: the monotonic clock stops while
// the host is suspended.
func (d *Daemon) wall() time.Time { return d.opts.Now().Round(0) }

// stopping reports whether Run is to end.
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

// all returns the current guards.
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

// enter returns the guard of a key. The caller must call leave on it.
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

// config returns the current configuration.
func (d *Daemon) config() *config.Config {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.conf
}

func (d *Daemon) close() { retire(d.all(), nil) }

// refreshEvery is the default of [Options.LookEvery].
const refreshEvery = 15 * time.Minute

// refresh looks at the repositories from time to time.
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
