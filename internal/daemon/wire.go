package daemon

import (
	"fmt"
	"log/slog"

	"github.com/etcd-backupd/backupd/internal/config"
	"github.com/etcd-backupd/backupd/internal/notify"
	"github.com/etcd-backupd/backupd/internal/server"
)

func newNotifier(conf *config.Config, log *slog.Logger, m *metrics) (*notify.Notifier, error) {
	targets, err := notifyTargets(conf)
	if err != nil {
		return nil, err
	}
	n := notify.New(targets, log)
	n.Results = func(kind, result string) { m.notifications.WithLabelValues(kind, result).Inc() }
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

// newServer makes the HTTP server and binds its address. It returns nil if the
// daemon is not to listen.
func (d *Daemon) newServer() (*server.Server, error) {
	c := d.opts.Config.Daemon.Server
	if c.Listen == "" {
		return nil, nil
	}
	return server.New(server.Options{
		Listen: c.Listen, CertFile: c.CertFile, KeyFile: c.KeyFile, ClientCAFile: c.ClientCAFile,
		ReadTokensFile: c.ReadTokensFile, OperateTokensFile: c.OperateTokensFile, AllowedHosts: c.AllowedHosts,
		Backend: d.backend, Metrics: d.Metrics(), Log: d.log, Version: d.opts.Version.Version,
	})
}
