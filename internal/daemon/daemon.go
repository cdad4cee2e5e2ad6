// Package daemon protects etcd clusters for years. It wires schedules, duties,
// notifications and the HTTP server together. It stores nothing but spools and a
// record beside them: it reads the past from the repositories.
package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/etcd-backupd/backupd/internal/companion"
	"github.com/etcd-backupd/backupd/internal/config"
	"github.com/etcd-backupd/backupd/internal/config/watch"
	"github.com/etcd-backupd/backupd/internal/daemon/systemd"
	"github.com/etcd-backupd/backupd/internal/server"
	"github.com/etcd-backupd/backupd/internal/spool"
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
	Watcher *watch.Watcher
	Version Version
	// Trace finds what files that start etcd refer to.
	Trace companion.Trace
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
	// CatchUpWithin is the longest wait before a backup is caught up that was missed
	// before the start. Zero means one minute.
	CatchUpWithin time.Duration
}

// Daemon protects the clusters of one configuration. Its methods may be called
// concurrently, Run only once. It answers the server's questions itself.
type Daemon struct {
	*backend
	log       *slog.Logger
	systemd   *systemd.Manager
	loaded    *reloads
	reloading sync.Mutex     // held during a reload: a later one must see the result of the earlier one
	server    *server.Server // nil before Run; guarded by reloading
}

// New makes a daemon. It connects to nothing; files that the configuration
// names must be readable.
func New(ctx context.Context, o Options) (*Daemon, error) {
	guards, err := NewGuards(ctx, o)
	if err != nil {
		return nil, err
	}
	o = guards.opts
	loaded := &reloads{}
	loaded.succeeded(o.Now())
	backend := &backend{guards}
	d := &Daemon{
		backend: backend, log: o.Log, loaded: loaded,
		systemd: systemd.New(o.Log, o.Now, backend.summary),
	}
	d.jobs.metrics.Register(&gauges{d.fleet, d.jobs, loaded, o.Version, o.Now, o.Log})
	d.jobs.scheduler.Beat, d.jobs.scheduler.Wall = d.systemd.Alive, d.builder.wall
	if o.CatchUpWithin > 0 {
		d.jobs.scheduler.Brake = o.CatchUpWithin
	}
	return d, nil
}

func (o *Options) setDefaults() {
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
}

// Run protects the clusters until ctx is done. Then it waits for the running jobs
// to end: uploads are stopped, and their snapshots stay pending in the spool.
func (d *Daemon) Run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	if err := d.begin(ctx); err != nil {
		return err
	}
	defer d.close()
	srv, err := d.openServer()
	if err != nil {
		return err
	}
	defer d.jobs.reporter.run(ctx)()

	g.Go(func() error { return d.jobs.scheduler.Run(ctx) })
	g.Go(func() error { return d.reloadOnChange(ctx) })
	g.Go(func() error { return d.refresh(ctx) })
	g.Go(func() error { spool.KeepRoom(ctx, d.spool); return nil })
	g.Go(func() error { return d.systemd.Run(ctx) })
	g.Go(func() error { return srv.Run(ctx) })
	err = g.Wait()
	if err != nil && !errors.Is(err, context.Canceled) {
		return fmt.Errorf("run daemon: %w", err)
	}
	return nil
}

// begin plans all jobs.
func (d *Daemon) begin(ctx context.Context) error {
	d.reloading.Lock() // a reload before Run may not have set its jobs yet
	defer d.reloading.Unlock()
	if !d.life.begin(ctx) {
		return errors.New("the daemon runs already")
	}
	d.systemd.Alive()
	d.jobs.scheduler.Set(d.jobs.all())
	return nil
}

// Metrics serves the daemon's metrics to Prometheus.
func (d *Daemon) Metrics() http.Handler { return d.jobs.metrics.Handler() }

// Trigger runs the backups of all clusters now.
func (d *Daemon) Trigger() { d.jobs.backupAll() }

// refreshEvery is the default of [Options.LookEvery].
const refreshEvery = 15 * time.Minute

// refresh looks at the repositories from time to time.
func (d *Daemon) refresh(ctx context.Context) error {
	tick := time.NewTicker(d.opts.LookEvery)
	defer tick.Stop()
	for {
		var g errgroup.Group
		g.SetLimit(4)
		for _, guard := range d.fleet.all() {
			g.Go(func() error {
				d.jobs.look(ctx, guard)
				return nil
			})
		}
		_ = g.Wait() // each guard keeps its own error
		d.jobs.reporter.certificates(d.fleet.config(), d.opts.Now())
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}
