package daemon_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/etcd-backupd/backupd/internal/daemon"
	"github.com/etcd-backupd/backupd/internal/disk"
	"github.com/etcd-backupd/backupd/internal/server"
	"github.com/etcd-backupd/backupd/internal/snapshot"
	"github.com/etcd-backupd/backupd/internal/spool"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// week is a configuration with three clusters, one of them down, and two
// repositories.
type week struct {
	*house
	plain, secure, down *testserver.Cluster
	away                *testserver.S3
}

func newWeek(t *testing.T) *week {
	t.Helper()
	w := &week{
		house:  newHouse(t),
		plain:  testserver.StartCluster(t, testserver.Options{Version: "3.5"}),
		secure: testserver.StartCluster(t, testserver.Options{Version: "3.7", TLS: true}),
		down:   testserver.StartCluster(t, testserver.Options{Version: "3.6"}),
		away:   shared.S3(t),
	}
	w.secure.EnableAuth(t, "secret")
	w.down.Members[0].Kill()
	if err := os.WriteFile(filepath.Join(w.dir, "password"), []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *week) configure(keep int) {
	w.t.Helper()
	text := fmt.Sprintf(`repositories:
  local: {url: "file://%[1]s/repository"}
  away: %[2]s
clusters:
  - name: plain
    endpoints: [%[3]s]
    repository: local
    snapshot: {schedule: "@every 1s"}
    retention: {keep-last: %[7]d}
  - name: secure
    endpoints: [%[4]s]
    repository: away
    user: root
    password-file: %[1]s/password
    tls: {ca-file: %[8]s, cert-file: %[5]s, key-file: %[6]s}
    snapshot: {schedule: "@every 1s"}
    retention: {keep-last: %[7]d}
  - name: down
    endpoints: [%[9]s]
    repository: local
    snapshot: {schedule: "@every 1s", retries: 0, request-timeout: 500ms}
daemon:
  server: {listen: "off"}
  spool: {folder: %[1]s, min-free: 0B}
  concurrency: 3
`, w.dir, w.bucket(w.away, "week", w.away.Endpoint), w.plain.Endpoints()[0], w.secure.Endpoints()[0],
		w.secure.CertFile, w.secure.KeyFile,
		keep, w.secure.CAFile, w.down.Endpoints()[0])
	w.must(os.WriteFile(w.path, []byte(text), 0o600))
	w.init("away")
}

func (w *week) write() {
	w.t.Helper()
	for _, c := range []*testserver.Cluster{w.plain, w.secure} {
		_, err := c.Client(w.t).Put(w.t.Context(), "k", time.Now().String())
		w.must(err)
	}
}

func (w *week) count(d *daemon.Daemon, of server.Key) int {
	list, err := d.Snapshots(w.t.Context(), of, "", 1000)
	if err != nil {
		return -1 // there is no repository yet
	}
	return len(list)
}

// grow writes until both clusters have so many snapshots.
func (w *week) grow(d *daemon.Daemon, ok func(n int) bool) {
	w.t.Helper()
	await(w.t, "snapshots", func() bool {
		w.write()
		return ok(w.count(d, server.Key{Repository: "local", Cluster: "plain"})) &&
			ok(w.count(d, server.Key{Repository: "away", Cluster: "secure"}))
	})
}

// checkAll verifies every snapshot of a cluster.
func (w *week) checkAll(repository, cluster string) {
	w.t.Helper()
	in := stored(w.store(repository), cluster)
	v := &snapshot.Verifier{Cluster: in, Spool: spool.Folder{Dir: w.dir, MinFree: disk.ReserveOf(0)}}
	for item, err := range in.Items(w.t.Context()) {
		w.must(err)
		if !item.Exists {
			continue // data of a backup that was stopped: no snapshot
		}
		if _, err := v.Verify(w.t.Context(), item); err != nil {
			w.t.Error(err)
		}
	}
}

// TestDaemon_Week is what test/e2e does with a real process, inside of this one,
// where leaks and races are seen: a restart and a reload. In the end every
// snapshot is good.
func TestDaemon_Week(t *testing.T) {
	t.Parallel()
	w := newWeek(t)
	w.configure(100)
	first := w.daemon()
	stop := w.run(first)
	w.grow(first, func(n int) bool { return n >= 5 })
	stop()

	second := w.daemon() // after a restart
	stop = w.run(second)
	w.grow(second, func(n int) bool { return n >= 7 })
	w.configure(3)
	second.Reload(t.Context()) // the new retention
	w.grow(second, func(n int) bool { return n <= 4 })
	await(t, "word of the cluster that is down", func() bool {
		c := second.Clusters()
		return c[2].State == server.ClusterFailure && c[0].State == server.ClusterOK && c[1].State == server.ClusterOK
	})
	stop()
	w.checkAll("local", "plain")
	w.checkAll("away", "secure")
}
