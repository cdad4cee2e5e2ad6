package daemon

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/etcd-backupd/backupd/internal/server"
	"github.com/etcd-backupd/backupd/internal/snapshot"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// TestDaemon_Week is what test/e2e does with a real process, inside of this one,
// where leaks and races are seen: three clusters, one of them down, two
// repositories, a restart and a reload. In the end every snapshot is good.
func TestDaemon_Week(t *testing.T) {
	plain := testserver.StartCluster(t, testserver.Options{Version: "3.5"})
	secure := testserver.StartCluster(t, testserver.Options{Version: "3.7", TLS: true})
	down := testserver.StartCluster(t, testserver.Options{Version: "3.6"})
	secure.EnableAuth(t, "secret")
	down.Members[0].Kill()
	away := testserver.StartS3(t)
	for _, v := range away.Env() {
		name, value, _ := strings.Cut(v, "=")
		t.Setenv(name, value)
	}
	h := &house{t: t, dir: t.TempDir(), real: plain}
	h.path = filepath.Join(h.dir, "backupd.yaml")
	if err := os.WriteFile(filepath.Join(h.dir, "password"), []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	configure := func(keep int) {
		text := fmt.Sprintf(`repositories:
  local: {url: "file://%[1]s/repository"}
  away: {url: %[2]s, s3: {endpoint: %[3]q, region: %[4]s}}
clusters:
  - name: plain
    endpoints: [%[5]s]
    repository: local
    snapshot: {schedule: "@every 1s"}
    retention: {keep-last: %[9]d}
  - name: secure
    endpoints: [%[6]s]
    repository: away
    user: root
    password-file: %[1]s/password
    tls: {ca-file: %[10]s, cert-file: %[7]s, key-file: %[8]s}
    snapshot: {schedule: "@every 1s"}
    retention: {keep-last: %[9]d}
  - name: down
    endpoints: [%[11]s]
    repository: local
    snapshot: {schedule: "@every 1s", retries: 0, request-timeout: 500ms}
daemon:
  server: {listen: "off"}
  spool: {folder: %[1]s}
  concurrency: 3
`, h.dir, away.URL("week"), away.Endpoint, away.Region, plain.Endpoints()[0], secure.Endpoints()[0], secure.CertFile, secure.KeyFile,
			keep, secure.CAFile, down.Endpoints()[0])
		if err := os.WriteFile(h.path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write := func() {
		for _, c := range []*testserver.Cluster{plain, secure} {
			if _, err := c.Client(t).Put(t.Context(), "k", time.Now().String()); err != nil {
				t.Fatal(err)
			}
		}
	}
	count := func(d *Daemon, cluster string) int {
		list, err := d.Snapshots(t.Context(), cluster, "", 1000)
		if err != nil {
			return -1 // there is no repository yet
		}
		return len(list)
	}

	configure(100)
	first := h.daemon()
	stop := h.run(first)
	h.await("five snapshots of each", func() bool {
		write()
		return count(first, "plain") >= 5 && count(first, "secure") >= 5
	})
	stop()

	second := h.daemon()
	stop = h.run(second)
	h.await("more after a restart", func() bool {
		write()
		return count(second, "plain") >= 7 && count(second, "secure") >= 7
	})
	configure(3)
	second.Reload(t.Context())
	h.await("the new retention", func() bool {
		write()
		return count(second, "plain") <= 4 && count(second, "secure") <= 4
	})
	h.await("word of the cluster that is down", func() bool {
		c := second.Clusters()
		return c[2].State == server.ClusterFailure && c[0].State == server.ClusterOK && c[1].State == server.ClusterOK
	})
	stop()

	for _, g := range second.all()[:2] {
		v := &snapshot.Verifier{Store: g.store, Spool: h.dir}
		for item, err := range snapshot.Catalog(t.Context(), g.store, g.conf.Name) {
			if err != nil {
				t.Fatal(err)
			}
			if !item.Manifest {
				continue // data of a backup that was stopped: no snapshot
			}
			if _, err := v.Verify(t.Context(), item.Entry); err != nil {
				t.Error(err)
			}
		}
	}
}
