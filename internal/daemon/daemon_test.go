package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/etcd-backupd/backupd/internal/config"
	"github.com/etcd-backupd/backupd/internal/server"
	"github.com/etcd-backupd/backupd/internal/snapshot"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// house is a configuration with one cluster and what tests do with it.
type house struct {
	t    *testing.T
	dir  string
	path string
	real *testserver.Cluster
}

func newHouse(t *testing.T) *house {
	t.Helper()
	dir := t.TempDir()
	h := &house{t: t, dir: dir, path: filepath.Join(dir, "backupd.yaml"), real: testserver.StartCluster(t, testserver.Options{})}
	if err := os.Mkdir(filepath.Join(dir, "spool"), 0o700); err != nil {
		t.Fatal(err)
	}
	h.configure("@hourly", "")
	return h
}

func (h *house) configure(schedule, more string) {
	h.t.Helper()
	text := fmt.Sprintf(`repositories:
  main: {url: "file://%[1]s/repository"}
clusters:
  - name: prod
    endpoints: [%[2]s]
    snapshot: {schedule: "%[3]s", retries: 0, request-timeout: 2s}
    retention: {keep-last: 3, min-verified: 1}
%[4]s
daemon:
  server: {listen: "off"}
  spool: {folder: %[1]s/spool}
`, h.dir, strings.Join(h.real.Endpoints(), ", "), schedule, more)
	if err := os.WriteFile(h.path, []byte(text), 0o600); err != nil {
		h.t.Fatal(err)
	}
}

func (h *house) load() *config.Config {
	h.t.Helper()
	c, err := config.Load(h.path)
	if err != nil {
		h.t.Fatal(err)
	}
	return c
}

func (h *house) daemon() *Daemon {
	h.t.Helper()
	d, err := New(h.t.Context(), Options{
		Config: h.load(), Path: h.path, Version: Version{"backupd test", "test", "abc", "go"},
		Log: slog.New(slog.NewTextHandler(h.t.Output(), nil)), Hint: func(error) string { return "do something" },
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return d
}

// run runs the daemon until the test is over or stop is called.
func (h *house) run(d *Daemon) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	stop = func() {
		cancel()
		if err := <-done; err != nil {
			h.t.Errorf("run: %v", err)
		}
		done <- nil
	}
	h.t.Cleanup(stop)
	return stop
}

func (h *house) await(what string, ok func() bool) {
	h.t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			h.t.Fatalf("waited in vain for %s", what)
		}
	}
}

// ended waits for a job and returns how it ended.
func (h *house) ended(d *Daemon, id string) server.Job {
	h.t.Helper()
	var got server.Job
	h.await("job "+id, func() bool {
		for _, j := range d.Jobs() {
			if j.ID == id {
				got = j
			}
		}
		return got.State != "" && got.State != server.JobRunning
	})
	return got
}

func (h *house) put(key string) {
	h.t.Helper()
	if _, err := h.real.Client(h.t).Put(h.t.Context(), key, "value"); err != nil {
		h.t.Fatal(err)
	}
}

func TestDaemon_Backup(t *testing.T) {
	h := newHouse(t)
	d := h.daemon()
	h.run(d)
	h.await("the first backup, which is caught up", func() bool { return d.Clusters()[0].State == server.ClusterOK })
	first := d.Clusters()[0]
	if first.Snapshot == "" || first.LastSuccess.IsZero() || first.NextRun.IsZero() || d.Ready() != nil {
		t.Errorf("after the first backup: %+v, ready %v", first, d.Ready())
	}
	h.put("a")
	j, err := d.StartBackup("prod")
	if err != nil {
		t.Fatal(err)
	}
	if got := h.ended(d, j.ID); got.State != server.JobSucceeded || got.Snapshot <= first.Snapshot || got.Reason != "manual" {
		t.Errorf("got %+v", got)
	}
	for range 4 {
		h.put("a")
		j, err := d.StartBackup("prod")
		if err != nil {
			t.Fatal(err)
		}
		h.ended(d, j.ID)
	}
	list, err := d.Snapshots(t.Context(), "prod", "", 100)
	if err != nil || len(list) != 3 {
		t.Errorf("retention left %d: %v", len(list), err)
	}
	rest, err := d.Snapshots(t.Context(), "prod", list[0].ID, 1)
	if err != nil || len(rest) != 1 || rest[0].ID != list[1].ID {
		t.Errorf("the page after %s: %+v, %v", list[0].ID, rest, err)
	}
	v, err := d.StartVerification("prod", snapshot.Latest)
	if err != nil {
		t.Fatal(err)
	}
	if got := h.ended(d, v.ID); got.State != server.JobSucceeded || got.Snapshot != list[0].ID {
		t.Errorf("verification: %+v", got)
	}
	if err := d.Pin(t.Context(), "prod", list[2].ID, "for the audit"); err != nil {
		t.Error(err)
	}
	detail, err := d.Snapshot(t.Context(), "prod", list[2].ID)
	if err != nil || detail.Pinned != "for the audit" {
		t.Errorf("got %+v, %v", detail, err)
	}
	if _, err := d.StartBackup("nobody"); !errors.Is(err, server.ErrNotFound) {
		t.Errorf("backup of an unknown cluster: %v", err)
	}
}

// TestDaemon_Unchanged: a cluster that has not changed needs no other snapshot,
// and counts as protected all the same.
func TestDaemon_Unchanged(t *testing.T) {
	h := newHouse(t)
	d := h.daemon()
	g := d.all()[0]
	once := func() (string, string) {
		t.Helper()
		m, skipped, err := g.slot(t.Context(), "scheduled")
		if err != nil {
			t.Fatal(err)
		}
		if m == nil {
			return "", skipped
		}
		return string(m.ID), skipped
	}
	defer d.close()
	first, _ := once()
	if id, skipped := once(); first == "" || id != "" || !strings.Contains(skipped, "revision") {
		t.Errorf("a second one of the same revision: %q, skipped %q", id, skipped)
	}
	if g.known.standing.confirmed.Before(g.known.standing.newest.StartedAt) {
		t.Error("the skipped slot does not count as protection")
	}
	h.put("a")
	if id, _ := once(); id == "" {
		t.Error("no snapshot of a new revision")
	}
	g.conf.Snapshot.MaxAge = 0
	if id, _ := once(); id == "" {
		t.Error("no snapshot although the newest is older than max-age")
	}
}

// TestDaemon_Sidecars: of three daemons beside three members one works.
func TestDaemon_Sidecars(t *testing.T) {
	h := newHouse(t)
	h.real = testserver.StartCluster(t, testserver.Options{Size: 3})
	worked := map[string]int{}
	for _, ep := range h.real.Endpoints() {
		h.configure("@hourly", "    local-endpoint: "+ep)
		d := h.daemon()
		m, skipped, err := d.all()[0].slot(t.Context(), "scheduled")
		d.close()
		switch {
		case err != nil:
			t.Fatal(err)
		case m != nil:
			worked["worked"]++
		case strings.Contains(skipped, "belongs to the daemon beside member"):
			worked["passed"]++
		default:
			t.Errorf("skipped: %s", skipped)
		}
	}
	if worked["worked"] != 1 || worked["passed"] != 2 {
		t.Errorf("got %v", worked)
	}
}

func TestDaemon_Metrics(t *testing.T) {
	h := newHouse(t)
	d := h.daemon()
	defer d.close()
	if _, _, err := d.all()[0].slot(t.Context(), "scheduled"); err != nil {
		t.Fatal(err)
	}
	problems, err := testutil.GatherAndLint(d.metrics.registry)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	rec := httptest.NewRecorder()
	d.metrics.handler().ServeHTTP(rec, httptest.NewRequest("GET", "/metrics", nil))
	for _, want := range []string{
		`backupd_backups_total{cluster="prod",result="verified"} 1`, `backupd_backups_total{cluster="prod",result="failed"} 0`,
		`backupd_last_success_timestamp_seconds{cluster="prod"}`, `backupd_schedule_interval_seconds{cluster="prod"} 3600`,
		`backupd_repository_snapshots{cluster="prod",state="verified"} 1`, `backupd_snapshot_suspect{cluster="prod"} 0`,
		`backupd_last_run_phase_duration_seconds{cluster="prod",phase="total"}`, `backupd_pending_uploads{cluster="prod"} 0`,
		`backupd_store_requests_total{operation="create",repository="main"}`, `backupd_config_last_reload_successful 1`,
		`backupd_build_info{go_version="go",revision="abc",version="test"} 1`, `backupd_cluster_info{cluster="prod",repository="main",schedule="@hourly"} 1`,
	} {
		if !strings.Contains(rec.Body.String(), want) {
			t.Errorf("%s is missing", want)
		}
	}
}

func TestDaemon_Reload(t *testing.T) {
	h := newHouse(t)
	d := h.daemon()
	h.run(d)
	h.await("the first backup", func() bool { return d.Clusters()[0].State == server.ClusterOK })
	before := d.all()[0]

	h.configure("@hourly", "    nonsense: true")
	d.Reload(t.Context())
	if ok, _ := d.loaded.state(); ok || d.all()[0] != before {
		t.Error("a configuration that is not valid is in use")
	}
	h.configure("@hourly", "")
	d.Reload(t.Context())
	if ok, _ := d.loaded.state(); !ok || d.all()[0] != before {
		t.Error("a cluster that has not changed was begun anew")
	}
	h.configure("@daily", "")
	d.Reload(t.Context())
	got := d.Clusters()[0]
	if d.all()[0] == before || got.Schedule != "@daily" || got.Snapshot == "" {
		t.Errorf("after the change: %+v", got)
	}
	h.put("a")
	j, err := d.StartBackup("prod")
	if err != nil {
		t.Fatal(err)
	}
	if got := h.ended(d, j.ID); got.State != server.JobSucceeded {
		t.Errorf("got %+v", got)
	}
}

// TestDaemon_EtcdDown: what cannot be backed up is said, and said to be bad when
// two slots have passed.
func TestDaemon_EtcdDown(t *testing.T) {
	h := newHouse(t)
	h.real.Members[0].Kill()
	d := h.daemon()
	defer d.close()
	g := d.all()[0]
	if _, _, err := g.slot(t.Context(), "scheduled"); err == nil {
		t.Fatal("a backup of a dead cluster")
	}
	if h := g.judge(time.Now()); h.state != server.ClusterWarning || h.hint == "" || !strings.Contains(h.problem, "no member can serve") {
		t.Errorf("at once: %+v", h)
	}
	if h := g.judge(time.Now().Add(3 * time.Hour)); h.state != server.ClusterFailure {
		t.Errorf("later: %+v", h)
	}
}

func TestDaemon_Once(t *testing.T) {
	h := newHouse(t)
	got, err := h.daemon().Once(t.Context(), nil)
	if err != nil || len(got) != 1 || got[0].Manifest == nil || got[0].Err != nil {
		t.Fatalf("got %+v, %v", got, err)
	}
	if got, err := h.daemon().Once(t.Context(), []string{"prod"}); err != nil || got[0].Skipped == "" {
		t.Errorf("again: %+v, %v", got, err)
	}
	if _, err := h.daemon().Once(t.Context(), []string{"nobody"}); err == nil {
		t.Error("an unknown cluster was taken")
	}
}
