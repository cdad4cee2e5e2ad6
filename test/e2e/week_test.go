package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcd-backupd/backupd/internal/testserver"
)

// TestWeek is a week of one daemon, compressed: three clusters (two versions,
// one with TLS and auth, one that is down all the time), two repositories, and
// everything that happens in a week. Afterwards every snapshot restores.
func TestWeek(t *testing.T) {
	w := newWeek(t)
	w.start(t)
	waitFor(t, "first snapshots", func() bool { return w.count("plain") >= 3 && w.count("secure") >= 3 })

	w.stop(t, syscall.SIGTERM)
	w.start(t)
	waitFor(t, "values after a restart", func() bool {
		return w.value("backupd_last_success_timestamp_seconds", `cluster="plain"`) > 0 &&
			w.value("backupd_repository_snapshots", `cluster="secure"`, `state="verified"`) >= 3
	})
	w.more(t, "after a restart")
	w.stop(t, syscall.SIGKILL)
	w.start(t)
	w.more(t, "after a kill")

	w.reload(t)
	w.rotate(t)
	w.outage(t)

	waitFor(t, "retention", func() bool { return w.count("plain") <= 8 && w.count("secure") <= 8 })
	var down clusterState
	waitFor(t, "word of the cluster that is down", func() bool {
		down = w.cluster(t, "down")
		return down.State == "failure"
	})
	if down.Hint == "" || down.LastSuccess != "" || w.get("/readyz") != "" {
		t.Errorf("the cluster that is down: %+v", down)
	}
	w.stop(t, syscall.SIGTERM)
	w.restoreAll(t)
}

// week is a daemon with its clusters and repositories.
type week struct {
	dir, config         string
	plain, secure, down *testserver.Cluster
	s3                  *testserver.S3
	outside             *testserver.Proxy // in front of the S3 server
	server              string
	cli                 *cli
	daemon              *exec.Cmd
	keepLast            int
}

func newWeek(t *testing.T) *week {
	dir := t.TempDir()
	w := &week{
		dir: dir, config: filepath.Join(dir, "backupd.yaml"), keepLast: 8,
		plain:  testserver.StartCluster(t, testserver.Options{Version: "3.5"}),
		secure: testserver.StartCluster(t, testserver.Options{Version: "3.7", Size: 3, TLS: true}),
		down:   testserver.StartCluster(t, testserver.Options{Version: "3.6"}),
		s3:     testserver.StartS3(t), server: testserver.FreeURL(t),
	}
	w.outside = testserver.StartProxy(t, strings.TrimPrefix(w.s3.Endpoint, "http://"))
	w.secure.EnableAuth(t, "first password")
	write(t, w.path("password"), "first password\n")
	w.copyCertificate(t, w.secure.CertFile, w.secure.KeyFile)
	w.down.Members[0].Kill()
	// Not as root, whose password will change.
	w.secure.AddUser(t, "writer", "writing", "writers")
	w.keepWriting(t, "plain", w.plain.Client(t))
	w.keepWriting(t, "secure", w.secure.ClientAs(t, "writer", "writing"))
	w.cli = newCLI(t, append(w.s3.Env(), "BACKUPD_SERVER="+w.server)...)
	w.configure(t, "")
	w.cli.run(t, "init", "--repo", "file://"+w.path("repository"))
	w.cli.run(t, "init", "--repo", w.s3.URL("week"))
	w.watchDaemon(t)
	return w
}

// watchDaemon ends the daemon with the test, whose log then holds the end of its log if the
// test failed.
func (w *week) watchDaemon(t *testing.T) {
	t.Cleanup(func() {
		if w.daemon != nil {
			_ = w.daemon.Process.Kill()
			_ = w.daemon.Wait()
		}
		if t.Failed() {
			log, _ := os.ReadFile(w.path("daemon.log"))
			t.Logf("the end of the daemon's log:\n%s", log[max(0, len(log)-8000):])
		}
	})
}

func (w *week) path(name string) string { return filepath.Join(w.dir, name) }

func write(t *testing.T, path, text string) {
	t.Helper()
	// As Kubernetes and careful people do it: never half a file.
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

func (w *week) copyCertificate(t *testing.T, cert, key string) {
	t.Helper()
	for from, to := range map[string]string{cert: "client.crt", key: "client.key"} {
		raw, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		write(t, w.path(to), string(raw))
	}
}

// keepWriting makes the revision move until the test is over.
func (w *week) keepWriting(t *testing.T, name string, cl *clientv3.Client) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for i := 0; ctx.Err() == nil; i++ {
			_, _ = cl.Put(ctx, fmt.Sprintf("%s/%d", name, i%100), strconv.Itoa(i)) // members may be paused
			select {
			case <-ctx.Done():
			case <-tick.C:
			}
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
}

func (w *week) configure(t *testing.T, more string) {
	t.Helper()
	list := func(c *testserver.Cluster) string { return "[" + strings.Join(c.Endpoints(), ", ") + "]" }
	write(t, w.config, fmt.Sprintf(`repositories:
  local:
    url: file://%[1]s/repository
  away:
    url: %[2]s
    s3: {endpoint: "http://%[3]s", region: %[4]s}
clusters:
  - name: plain
    endpoints: %[5]s
    repository: local
    snapshot: {schedule: "@every 1s", request-timeout: 2s}
    retention: {keep-last: %[8]d}
  - name: secure
    endpoints: %[6]s
    repository: away
    user: root
    password-file: %[1]s/password
    tls: {ca-file: %[9]s, cert-file: %[1]s/client.crt, key-file: %[1]s/client.key}
    snapshot: {schedule: "@every 2s", request-timeout: 2s, timeout: 1m}
    verify: {schedule: "@every 10s"}
    retention: {keep-last: %[8]d}
  - name: down
    endpoints: %[7]s
    repository: local
    snapshot: {schedule: "@every 1s", request-timeout: 500ms, retries: 0}
daemon:
  server: {listen: "%[10]s"}
  spool: {folder: %[1]s/spool, min-free: 0B}
  concurrency: 3
  log: {format: json}
%[11]s`, w.dir, w.s3.URL("week"), w.outside.Addr, w.s3.Region, list(w.plain), list(w.secure), list(w.down),
		w.keepLast, w.secure.CAFile, strings.TrimPrefix(w.server, "http://"), more))
}

func (w *week) start(t *testing.T) {
	t.Helper()
	if err := os.MkdirAll(w.path("spool"), 0o700); err != nil {
		t.Fatal(err)
	}
	log, err := os.OpenFile(w.path("daemon.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	w.daemon = exec.Command(binary, "run", "--config", w.config)
	w.daemon.Env, w.daemon.Stdout, w.daemon.Stderr = w.cli.env, log, log
	if err := w.daemon.Start(); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "daemon", func() bool { return w.get("/healthz") != "" })
}

func (w *week) stop(t *testing.T, sig syscall.Signal) {
	t.Helper()
	if err := w.daemon.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
	if err := w.daemon.Wait(); err != nil && sig == syscall.SIGTERM {
		t.Errorf("the daemon was asked to stop: %v", err)
	}
	w.daemon = nil
}

// get returns the body of a good answer, or nothing.
func (w *week) get(path string) string {
	resp, err := http.Get(w.server + path)
	if err != nil {
		return ""
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		return ""
	}
	return string(raw)
}

// value returns the value of a metric with the labels, or -1.
func (w *week) value(name string, labels ...string) float64 {
	for line := range strings.Lines(w.get("/metrics")) {
		head, value, ok := strings.Cut(strings.TrimSpace(line), "} ")
		if len(labels) == 0 {
			head, value, ok = strings.Cut(strings.TrimSpace(line), " ")
		}
		metric, rest, _ := strings.Cut(head, "{")
		if !ok || metric != name {
			continue
		}
		for _, l := range labels {
			ok = ok && strings.Contains(rest, l)
		}
		if v, err := strconv.ParseFloat(value, 64); ok && err == nil {
			return v
		}
	}
	return -1
}

// clusterPath is where the API has a cluster.
func clusterPath(name string) string {
	repository := "local"
	if name == "secure" {
		repository = "away"
	}
	return "/api/v1/repositories/" + repository + "/clusters/" + name
}

// count tells how many snapshots the daemon lists.
func (w *week) count(cluster string) int {
	var list struct{ Snapshots []struct{ ID string } }
	if err := json.Unmarshal([]byte(w.get(clusterPath(cluster)+"/snapshots?limit=1000")), &list); err != nil {
		return -1
	}
	return len(list.Snapshots)
}

type clusterState struct {
	State, Problem, Hint, LastSuccess, Snapshot string
	Running                                     bool
}

func (w *week) cluster(t *testing.T, name string) clusterState {
	t.Helper()
	return decode[clusterState](t, w.get(clusterPath(name)))
}

// more waits until both clusters have a new verified snapshot.
func (w *week) more(t *testing.T, when string) {
	t.Helper()
	for _, name := range []string{"plain", "secure"} {
		var before string
		waitFor(t, name+" to be listed "+when, func() bool {
			before = w.cluster(t, name).Snapshot
			return before != ""
		})
		waitFor(t, "a new snapshot of "+name+" "+when, func() bool { return w.cluster(t, name).Snapshot > before })
	}
}

// reload changes the configuration: a bad one changes nothing, a good one does.
func (w *week) reload(t *testing.T) {
	w.configure(t, "  concurency: 2\n")
	waitFor(t, "a refused configuration", func() bool { return w.value("backupd_config_last_reload_successful") == 0 })
	w.more(t, "under the old configuration")
	w.keepLast = 4
	w.configure(t, "")
	waitFor(t, "the new configuration", func() bool { return w.value("backupd_config_last_reload_successful") == 1 })
	waitFor(t, "the new retention", func() bool { return w.count("plain") <= 6 && w.count("secure") <= 6 })
}

// rotate changes the password and the client certificate of the secure cluster.
func (w *week) rotate(t *testing.T) {
	if _, err := w.secure.Client(t).UserChangePassword(t.Context(), "root", "second password"); err != nil {
		t.Fatal(err)
	}
	write(t, w.path("password"), "second password\n")
	cert, key := w.secure.IssueCert(t, "another-client")
	w.copyCertificate(t, cert, key)
	w.more(t, "after the rotation")
	w.stop(t, syscall.SIGTERM)
	w.start(t)
	w.more(t, "with the new credentials alone")
}

var streamed = regexp.MustCompile(`"sending database snapshot to client"`)

// streams counts how often the secure cluster was asked for its database.
func (w *week) streams() int {
	n := 0
	for _, m := range w.secure.Members {
		n += len(streamed.FindAllString(m.Log(), -1))
	}
	return n
}

// outage takes the S3 server away, and etcd too while it is gone. The received
// database must be stored all the same.
func (w *week) outage(t *testing.T) {
	// Between two slots, for a running backup would be tried for minutes first.
	before := w.cluster(t, "secure").Snapshot
	waitFor(t, "the end of a slot", func() bool {
		c := w.cluster(t, "secure")
		return c.Snapshot > before && !c.Running
	})
	w.outside.Cut()
	waitFor(t, "a pending snapshot", func() bool { return w.value("backupd_pending_uploads", `cluster="secure"`) >= 1 })
	w.plainGoesOn(t)
	for _, m := range w.secure.Members {
		m.Pause()
	}
	streams := w.streams()
	w.stop(t, syscall.SIGKILL)
	w.start(t)
	w.outside.Resume()
	waitFor(t, "the pending snapshot to be stored",
		func() bool { return w.value("backupd_pending_uploads", `cluster="secure"`) == 0 })
	if after := w.streams(); after != streams {
		t.Errorf("etcd was asked for %d more streams", after-streams)
	}
	for _, m := range w.secure.Members {
		m.Resume()
	}
	w.secure.WaitReady(t)
	w.more(t, "after the outage")
}

// plainGoesOn waits until the cluster in the other repository has gone on.
func (w *week) plainGoesOn(t *testing.T) {
	t.Helper()
	before := w.cluster(t, "plain").Snapshot
	waitFor(t, "the other repository to go on", func() bool { return w.cluster(t, "plain").Snapshot > before })
}

// restoreAll restores every snapshot that is listed, and boots the newest ones.
func (w *week) restoreAll(t *testing.T) {
	for name, repo := range map[string]string{"plain": "file://" + w.path("repository"), "secure": w.s3.URL("week")} {
		list := decode[struct {
			Snapshots []struct {
				ID       string
				State    string
				Revision int64
			}
		}](t, w.cli.run(t, "list", "--repo", repo, "--cluster", name, "-w", "json"))
		if len(list.Snapshots) < 3 {
			t.Errorf("%s: %d snapshots are left", name, len(list.Snapshots))
		}
		for i, s := range list.Snapshots {
			if s.State != "verified" {
				t.Errorf("%s: %s is %s", name, s.ID, s.State)
			}
			w.cli.run(t, "verify", "--repo", repo, "--cluster", name, s.ID)
			out := filepath.Join(t.TempDir(), "restored")
			url := testserver.FreeURL(t)
			w.cli.run(t, "restore", "--repo", repo, "--cluster", name, s.ID, "--name", "r1", "--data-dir", out,
				"--bump-revision", "0", // so that HashKV can be compared at the old revision
				"--initial-cluster", "r1="+url, "--initial-advertise-peer-urls", url)
			if i > 0 || name != "plain" {
				continue
			}
			restored := testserver.StartRestored(t, "3.5",
				[]testserver.RestoredMember{{Name: "r1", DataDir: out, PeerURL: url, ClientURL: testserver.FreeURL(t)}})
			if got := hashes(t, restored, s.Revision)[restored.Endpoints()[0]]; got != decode[snapshot](t,
				w.cli.run(t, "show", "--repo", repo, "--cluster", name, s.ID, "-w", "json")).Manifest.HashKV.Hash {
				t.Errorf("%s: HashKV of the restored cluster is %d", s.ID, got)
			}
		}
	}
}
