package daemon

import (
	"fmt"
	"log/slog"

	"github.com/etcd-backupd/backupd/internal/config"
	"github.com/etcd-backupd/backupd/internal/daemon/counters"
	"github.com/etcd-backupd/backupd/internal/notify"
	"github.com/etcd-backupd/backupd/internal/server"
)

func newNotifier(conf *config.Config, log *slog.Logger, m *counters.Counters) (*notify.Notifier, error) {
	targets, err := notifyTargets(conf)
	if err != nil {
		return nil, err
	}
	n := notify.New(targets, log)
	n.Results = m.Notified
	return n, nil
}

// notifyTargets makes the receivers of a configuration.
func notifyTargets(conf *config.Config) ([]*notify.Target, error) {
	var out []*notify.Target
	for i := range conf.Daemon.Notifications {
		t, err := conf.Daemon.Notifications[i].Target()
		if err != nil {
			return nil, fmt.Errorf("notification %d: %w", i+1, err)
		}
		out = append(out, t)
	}
	return out, nil
}

// openServer makes the HTTP server and binds its addresses.
func (d *Daemon) openServer() (*server.Server, error) {
	d.reloading.Lock() // a reload from now on changes the server
	defer d.reloading.Unlock()
	o := d.fleet.config().Daemon.Server.Options()
	o.Backend, o.Metrics, o.Log, o.Version = d.backend, d.Metrics(), d.log, d.opts.Version.Version
	var err error
	d.server, err = server.New(o)
	return d.server, err
}

// prepareServer checks what a new configuration says of the server, and opens its addresses.
// The change is nil before the daemon runs.
func (d *Daemon) prepareServer(conf *config.Config) (*server.Change, error) {
	if d.server == nil {
		return nil, nil
	}
	change, err := d.server.Prepare(conf.Daemon.Server.Options())
	if err != nil {
		return nil, fmt.Errorf("daemon.server: %w", err)
	}
	return change, nil
}
