package daemon_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/daemon"
	"github.com/etcd-backupd/backupd/internal/server"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// TestSlot_MovedName: a name leads to another cluster by now, while the old one
// lives on and connections to it would stay.
func TestSlot_MovedName(t *testing.T) {
	h := newHouse(t)
	other := testserver.StartCluster(t, testserver.Options{})
	proxy := h.through()[0]
	h.configure("@every 1s", "")
	d, _ := h.protected()
	skipped(h, d)
	proxy.Redirect(strings.TrimPrefix(other.Endpoints()[0], "http://"))
	h.troubled(d, server.ClusterFailure, "history")
}

// TestSlot_WrongCA: the authority in a file is no longer the one of the cluster, and
// etcd is not started again.
func TestSlot_WrongCA(t *testing.T) {
	h := newHouse(t)
	h.etcd = testserver.StartCluster(t, testserver.Options{TLS: true})
	ca := filepath.Join(h.dir, "ca")
	use := func(file string) {
		raw, err := os.ReadFile(file)
		h.must(err)
		h.must(os.WriteFile(ca, raw, 0o600))
	}
	use(h.etcd.CAFile)
	h.configure("@every 1s", "    tls: {ca-file: "+ca+", cert-file: "+h.etcd.CertFile+", key-file: "+h.etcd.KeyFile+"}\n")
	d, _ := h.protected()
	skipped(h, d)
	use(testserver.NewAuthority(t).File)
	h.troubled(d, server.ClusterWarning, "unknown authority")
	use(h.etcd.CAFile)
	h.ok(d)
}

// skipped waits for a slot in which nothing was to be done: it has asked etcd.
func skipped(h *house, d *daemon.Daemon) {
	h.t.Helper()
	await(h.t, "a slot to be skipped", func() bool {
		for _, j := range d.Jobs() {
			if j.State == server.JobSkipped && j.Kind == "backup" {
				return true
			}
		}
		return false
	})
}
