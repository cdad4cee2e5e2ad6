package daemon

import (
	"fmt"
	"slices"
	"time"

	"github.com/etcd-backupd/backupd/internal/certs"
	"github.com/etcd-backupd/backupd/internal/config"
	"github.com/etcd-backupd/backupd/internal/notify"
)

// certificates notifies of the certificates that must be renewed. One that cannot be
// read says nothing here.
func (r *reporter) certificates(conf *config.Config, now time.Time) {
	for _, file := range conf.CertificateFiles() {
		all, err := certs.Read(file)
		if err != nil {
			continue
		}
		e := notify.Event{Job: "certificate", File: file, Time: now.UTC()}
		e.Repository, e.Cluster = owner(conf, file)
		if cert := certs.Due(all, now); cert != nil {
			verb := "expires"
			if cert.NotAfter.Before(now) {
				verb = "expired"
			}
			e.Kind, e.Expires = notify.CertificateExpiring, cert.NotAfter.UTC()
			e.Error = fmt.Sprintf("it %s on %s", verb, e.Expires.Format("2006-01-02 15:04 UTC"))
			e.Hint = "renew it; backupd reads the file again by itself"
		}
		r.notifier.Outcome(e)
	}
}

// owner returns the cluster that alone uses a file of certificates, with its
// repository, or nothing.
func owner(conf *config.Config, file string) (repository, cluster string) {
	s := conf.Daemon.Server
	if slices.Contains([]string{s.CertFile, s.ClientCAFile}, file) {
		return "", ""
	}
	users := 0
	for _, c := range conf.Clusters {
		if c.TLS.CAFile == file || c.TLS.CertFile == file {
			repository, cluster = c.Repository, c.Name
			users++
		}
	}
	if users != 1 {
		return "", ""
	}
	return repository, cluster
}
