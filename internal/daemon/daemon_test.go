package daemon_test

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/cluster"
	"github.com/etcd-backupd/backupd/internal/daemon"
	"github.com/etcd-backupd/backupd/internal/duty"
	"github.com/etcd-backupd/backupd/internal/server"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

func TestDaemon_Backup(t *testing.T) {
	h := newHouse(t)
	d, first := h.protected() // the first backup is caught up
	if first.Snapshot == "" || first.LastSuccess.IsZero() || first.NextRun.IsZero() || d.Ready() != nil {
		t.Errorf("after the first backup: %+v, ready %v", first, d.Ready())
	}
	h.put("a")
	got := h.backup(d, server.JobSucceeded)
	if r := backup.SnapshotID(got.Snapshot).Revision(); r <= backup.Revision(first.Revision) || got.Reason != "manual" {
		t.Errorf("got %+v", got)
	}
	for range 4 {
		h.put("a")
		h.backup(d, server.JobSucceeded)
	}
	list, err := d.Snapshots(t.Context(), inMain("prod"), "", 100)
	if err != nil || len(list) != 3 {
		t.Fatalf("retention left %d: %v", len(list), err)
	}
	rest, err := d.Snapshots(t.Context(), inMain("prod"), string(list[0].ID), 1)
	if err != nil || len(rest) != 1 || rest[0].ID != list[1].ID {
		t.Errorf("the page after %s: %+v, %v", list[0].ID, rest, err)
	}
	if got := h.verify(d, server.Latest); got.State != server.JobSucceeded || got.Snapshot != string(list[0].ID) {
		t.Errorf("verification: %+v", got)
	}
	if err := d.Pin(t.Context(), inMain("prod"), string(list[2].ID), "for the audit"); err != nil {
		t.Error(err)
	}
	detail, err := d.Snapshot(t.Context(), inMain("prod"), string(list[2].ID))
	if err != nil || !detail.Pinned || detail.PinReason != "for the audit" {
		t.Errorf("got %+v, %v", detail, err)
	}
	if _, err := d.StartBackup(inMain("nobody")); !errors.Is(err, server.ErrNotFound) {
		t.Errorf("backup of an unknown cluster: %v", err)
	}
}

// TestDaemon_Unchanged: a cluster that has not changed needs no other snapshot,
// and counts as protected all the same.
func TestDaemon_Unchanged(t *testing.T) {
	h := newHouse(t)
	h.configure("@hourly", "")
	first := h.taken()
	h.clock.put(10 * time.Minute)
	d, out := h.once()
	if out.Err != nil || out.Manifest != nil || !strings.Contains(out.Reason, "revision") {
		t.Errorf("a second one of the same revision: %+v", out)
	}
	if c := d.Clusters()[0]; c.LastSuccess.Before(first.StartedAt.Add(9*time.Minute)) || c.State != server.ClusterOK {
		t.Errorf("the skipped slot does not count as protection: %+v", c)
	}
	h.put("a")
	if next := h.taken(); next.Revision <= first.Revision {
		t.Errorf("got revision %d after %d", next.Revision, first.Revision)
	}
	h.edit("retries: 0", "max-age: 0s, retries: 0") // the newest is always older
	h.taken()
}

// TestMaxAge: an unchanged cluster gets a new snapshot when the newest is older
// than max-age.
func TestMaxAge(t *testing.T) {
	h := newHouse(t)
	h.configure("@every 1h", "") // at all times of day the next slot is an hour away
	h.edit("retries: 0", "max-age: 2h, retries: 0")
	m := h.taken()
	h.clock.stop(m.StartedAt.Add(30 * time.Minute))
	if _, out := h.once(); out.Reason == "" {
		t.Errorf("half an hour old, it does not count for the cluster: %+v", out)
	}
	h.clock.stop(m.StartedAt.Add(119 * time.Minute))
	h.taken()
}

// sidecar configures a daemon beside a member.
func (h *house) sidecar(endpoint string) { h.configure("@hourly", "    local-endpoint: "+endpoint) }

// TestDaemon_Sidecars: of three daemons beside three members one works.
func TestDaemon_Sidecars(t *testing.T) {
	h := newHouse(t)
	h.etcd = shared.Cluster(t, 3)
	worked := map[string]int{}
	for _, ep := range h.etcd.Endpoints() {
		h.sidecar(ep)
		switch _, out := h.once(); {
		case out.Err != nil && (out.Result != duty.Passed || worked["worked"] > 0):
			t.Fatal(out.Err)
		case out.Err == nil && out.Result == duty.Passed && worked["worked"] == 0:
			t.Error("the cluster was never protected, and this ends well")
		case out.Manifest != nil:
			worked["worked"]++
		case strings.Contains(out.Reason, "belongs to the daemon beside member"):
			worked["passed"]++
		default:
			t.Errorf("skipped: %s", out.Reason)
		}
	}
	if worked["worked"] != 1 || worked["passed"] != 2 {
		t.Errorf("got %v", worked)
	}
}

// TestSidecars_TakeOver: a daemon takes over between two slots, if the one whose turn it
// was is away.
func TestSidecars_TakeOver(t *testing.T) {
	h := newHouse(t)
	h.etcd = shared.Cluster(t, 3)
	survey, err := testserver.Connect(t, cluster.Config{Endpoints: h.etcd.Endpoints()}).Survey(t.Context())
	h.must(err)
	at := func(turn int) {
		h.configure("@yearly", "    local-endpoint: "+survey.Endpoint(cluster.Worker(survey, turn)))
	}
	at(0)
	first := h.taken()
	h.put("a")
	h.looks = 20 * time.Millisecond
	at(2)
	third := h.daemon()
	h.run(third)
	at(1)
	second := h.daemon()
	h.run(second)
	const year = 366 * 24 * time.Hour
	h.clock.stop(first.StartedAt.Add(year*3/2 + time.Hour))
	knows := func(d *daemon.Daemon) func() bool { // before its first look it knows of none
		return func() bool { id := d.Clusters()[0].Snapshot; return id != "" && id != string(first.ID) }
	}
	await(t, "the second to take over", knows(second))
	await(t, "the third to see it", knows(third))
	await(t, "the second's job to end", func() bool {
		return !slices.ContainsFunc(second.Jobs(), func(j server.Job) bool { return j.State == server.JobRunning })
	})
	for _, j := range third.Jobs() {
		if j.Kind == "backup" && j.State != server.JobSkipped {
			t.Errorf("the third has not passed: %+v", j)
		}
	}
	n := 0
	for _, j := range second.Jobs() {
		if j.State == server.JobSucceeded {
			n++
		}
	}
	if n != 1 {
		t.Errorf("the second took %d snapshots", n)
	}
}

func TestDaemon_Metrics(t *testing.T) {
	h := newHouse(t)
	h.configure("@hourly", "")
	d, out := h.once()
	if out.Err != nil {
		t.Fatal(out.Err)
	}
	text := scrape(t, d)
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
	for _, want := range []string{
		`backupd_backups_total{cluster="prod",repository="main",result="verified"} 1`,
		`backupd_backups_total{cluster="prod",repository="main",result="failed"} 0`,
		`backupd_last_success_timestamp_seconds{cluster="prod",repository="main"}`,
		`backupd_schedule_interval_seconds{cluster="prod",repository="main"} 3600`,
		`backupd_repository_snapshots{cluster="prod",repository="main",state="verified"} 1`,
		`backupd_snapshot_suspect{cluster="prod",repository="main"} 0`,
		`backupd_last_run_phase_duration_seconds{cluster="prod",phase="total",repository="main"}`,
		`backupd_pending_uploads{cluster="prod",repository="main"} 0`,
		`backupd_store_requests_total{operation="create",repository="main"}`, `backupd_config_last_reload_successful 1`,
		`backupd_build_info{go_version="go",revision="abc",version="test"} 1`,
		`backupd_cluster_info{cluster="prod",repository="main",schedule="@hourly"} 1`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%s is missing", want)
		}
	}
}

// TestDaemon_EtcdDown: a backup that fails is a warning at once, and a failure
// when two slots have passed.
func TestDaemon_EtcdDown(t *testing.T) {
	h := newHouse(t)
	h.endpoints = []string{testserver.FreeURL(t)}
	h.configure("@hourly", "")
	d, out := h.once()
	if out.Err == nil {
		t.Fatal("a backup of a dead cluster")
	}
	if c := d.Clusters()[0]; c.State != server.ClusterWarning || c.Hint == "" ||
		!strings.Contains(c.Problem, "no member can serve") {
		t.Errorf("at once: %+v", c)
	}
	h.clock.put(3 * time.Hour)
	if c := d.Clusters()[0]; c.State != server.ClusterFailure || d.Ready() == nil {
		t.Errorf("later: %+v", c)
	}
}

func TestDaemon_Once(t *testing.T) {
	h := newHouse(t)
	h.configure("@hourly", "")
	got, err := h.daemon().Once(t.Context(), nil)
	if err != nil || len(got) != 1 {
		t.Fatalf("got %d outcomes, %v", len(got), err)
	}
	if out := got[0].Outcome; out.Manifest == nil || out.Err != nil {
		t.Fatalf("got %+v", out)
	}
	if _, again := h.once(); again.Err != nil || again.Reason == "" {
		t.Errorf("again: %+v", again)
	}
	if _, err := h.daemon().Once(t.Context(), []string{"nobody"}); err == nil {
		t.Error("an unknown cluster was taken")
	}
}

// TestSnapshots_Pages: ids do not sort as text.
func TestSnapshots_Pages(t *testing.T) {
	h := newHouse(t)
	m := h.taken()
	// Above that of the shared etcd, which other tests write to as well.
	want := []string{string(m.ID)}
	for _, id := range h.sameSecond(m, 90_009, 99_999, 100_000, 1_000_000) {
		want = append([]string{id}, want...)
	}
	if got := pages(t, h.daemon(), 1); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// pages returns the ids of all pages.
func pages(t *testing.T, d *daemon.Daemon, limit int) (got []string) {
	t.Helper()
	for after := ""; ; {
		page, err := d.Snapshots(t.Context(), inMain("prod"), after, limit)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			return got
		}
		for _, s := range page {
			got = append(got, string(s.ID))
		}
		after = got[len(got)-1]
	}
}
