package daemon

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/etcd-backupd/backupd/internal/config"
)

// reloads remembers the result of the last reload.
type reloads struct {
	mu   sync.Mutex
	ok   bool
	last time.Time // when the configuration in use was read
}

func (r *reloads) succeeded(at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ok, r.last = true, at
}

func (r *reloads) failed() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.ok = false
}

func (r *reloads) state() (ok bool, at time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.ok, r.last
}

// reloadOnChange reads the configuration again whenever its file changes.
func (d *Daemon) reloadOnChange(ctx context.Context) error {
	if d.opts.Watcher == nil {
		return nil
	}
	d.opts.Watcher.Run(ctx, func() { d.Reload(ctx) })
	return nil
}

// Reload reads the file of the configuration again. An invalid one changes nothing
// but a metric, and is logged.
func (d *Daemon) Reload(ctx context.Context) {
	d.reloading.Lock()
	defer d.reloading.Unlock()
	defer d.systemd.Reloading()()
	if err := d.reload(ctx); err != nil {
		d.loaded.failed()
		d.log.Error("configuration not reloaded, the old one stays in use", "file", d.opts.Path, "err", err)
		return
	}
	d.loaded.succeeded(d.opts.Now())
	d.log.Info("configuration reloaded", "file", d.opts.Path)
}

func (d *Daemon) reload(ctx context.Context) error {
	conf, err := config.Load(d.opts.Path)
	if err != nil {
		return err
	}
	if problems := conf.CheckOwnFiles(); len(problems) > 0 {
		return &config.Error{Problems: problems} // a restart would fail with it too
	}
	guards, err := d.builder.guards(conf, d.fleet.all())
	if err != nil {
		return err
	}
	targets, err := notifyTargets(conf)
	if err != nil {
		retire(guards, d.fleet.all())
		return err
	}
	change, err := d.prepareServer(conf)
	if err != nil {
		retire(guards, d.fleet.all())
		return err
	}
	old := d.fleet.config()
	d.warn(old, conf)
	d.jobs.reporter.notifier.Set(targets)
	d.jobs.scheduler.SetLimit(max(conf.Daemon.Concurrency, 1))
	before := d.use(conf, guards)
	if change != nil {
		change.Apply()
	}
	d.jobs.scheduler.Set(d.jobs.all())
	retire(before, guards)
	for name := range old.Repositories {
		if _, ok := conf.Repositories[name]; !ok {
			d.jobs.metrics.ForgetRepository(name)
		}
	}
	return nil
}

// warn logs the changes that a reload does not make, and the pending snapshots
// that it leaves behind.
func (d *Daemon) warn(old, conf *config.Config) {
	if old.Daemon.Log != conf.Daemon.Log {
		d.log.Warn("changes of daemon.log take effect when the daemon is started again")
	}
	folder := spoolOf(old, d.log)
	waiting, err := folder.Waiting()
	if err != nil {
		return // the next backup reports it
	}
	for _, p := range waiting {
		c := p.Capture
		guarded := slices.ContainsFunc(conf.Clusters,
			func(known config.Cluster) bool { return known.Name == c.Cluster })
		if !guarded || old.Daemon.Spool.Folder != conf.Daemon.Spool.Folder {
			d.log.Error("a snapshot that waits in the spool is not stored under the new configuration",
				"cluster", c.Cluster, "path", p.Path, "since", c.StartedAt)
		}
	}
}
