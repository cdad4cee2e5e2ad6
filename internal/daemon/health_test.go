package daemon_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/daemon"
	"github.com/etcd-backupd/backupd/internal/server"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// judged compares how a cluster is protected with how it should be. A problem
// with a reason has a hint, and both are one line.
func judged(t *testing.T, d *daemon.Daemon, state, problem string) {
	t.Helper()
	c := d.Clusters()[0]
	if c.State != state || !strings.Contains(c.Problem, problem) || problem == "" && c.Problem != "" {
		t.Errorf("got %q because %q, want %q because %q", c.State, c.Problem, state, problem)
	}
	checkProblem(t, c)
	if ready := d.Ready(); (ready == nil) != (c.State != server.ClusterFailure) {
		t.Errorf("the cluster is %q, and ready says %v", c.State, ready)
	}
}

func checkProblem(t *testing.T, c server.Cluster) {
	t.Helper()
	if strings.Contains(c.Problem, "\n") {
		t.Errorf("more than a line: %q", c.Problem)
	}
	if strings.Contains(c.Problem, ": ") && c.Hint == "" {
		t.Errorf("no hint: %+v", c)
	}
}

// TestHealth_Age: one slot may be missed, and the next may still be running.
func TestHealth_Age(t *testing.T) {
	h := newHouse(t)
	h.configure("@hourly", "")
	h.edit("retries: 0", "jitter: 10m, retries: 0")
	d, out := h.once()
	if out.Err != nil {
		t.Fatal(out.Err)
	}
	start := out.Manifest.StartedAt
	for _, c := range []struct {
		age            time.Duration
		state, problem string
	}{
		{time.Hour, server.ClusterOK, ""},
		{119 * time.Minute, server.ClusterOK, ""},
		{129 * time.Minute, server.ClusterOK, ""}, // with its jitter
		{131 * time.Minute, server.ClusterFailure, "the last verified snapshot is 2h11m0s old"},
	} {
		h.clock.stop(start.Add(c.age))
		judged(t, d, c.state, c.problem)
	}

	// Another daemon has just been started, and cannot catch up. It knows from the record
	// how old the snapshot is.
	h.clock.stop(start.Add(100 * time.Hour))
	h.endpoints = []string{testserver.FreeURL(t), testserver.FreeURL(t)}
	h.configure("@hourly", "")
	again := h.daemon()
	judged(t, again, server.ClusterFailure, "the last verified snapshot is 100h0m0s old")
	h.run(again)
	checkProblem(t, h.troubled(again, server.ClusterFailure, "100h0m0s old: no member can serve")) // and why
}

// TestHealth_Lines: an error of several lines becomes one.
func TestHealth_Lines(t *testing.T) {
	h := newHouse(t)
	h.gated().refuse("PUT", "prod/data/")
	d, out := h.once()
	if out.Err == nil || !strings.Contains(out.Err.Error(), "no\nnot you") {
		t.Fatalf("got %+v", out)
	}
	judged(t, d, server.ClusterWarning, "the last backup failed: ")
	judged(t, d, server.ClusterWarning, "no; not you")
}

// TestHealth_First: a daemon that has just begun reports no failure.
func TestHealth_First(t *testing.T) {
	h := newHouse(t)
	h.through()[0].Stall()
	h.configure("@hourly", "")
	h.edit("request-timeout: 2s", "request-timeout: 1m")
	d := h.daemon()
	h.run(d)
	h.troubled(d, server.ClusterWarning, "there is no verified snapshot yet")
	judged(t, d, server.ClusterWarning, "there is no verified snapshot yet")
	h.clock.put(3 * time.Hour)
	judged(t, d, server.ClusterFailure, "there is no verified snapshot")
}

// TestHealth_StoreIsWhy: an old snapshot is a failure. The reason is the store
// that is down, unless there is a nearer one.
func TestHealth_StoreIsWhy(t *testing.T) {
	h := newHouse(t)
	h.looks = often
	proxy := h.through()[0]
	h.configure("@hourly", "")
	d, _ := h.protected()
	h.unreadable()
	h.troubled(d, server.ClusterWarning, "not a directory") // a look before may have seen nothing there
	judged(t, d, server.ClusterWarning, "the repository cannot be read: ")
	h.clock.put(3 * time.Hour)
	got := h.troubled(d, server.ClusterFailure, "old: ")
	if !strings.Contains(got.Problem, "not a directory") {
		t.Errorf("got %q", got.Problem)
	}
	checkProblem(t, got)
	proxy.Cut()
	h.backup(d, server.JobFailed)
	checkProblem(t, h.troubled(d, server.ClusterFailure, "old: no member can serve"))
}

// TestHealth_Backup: one backup that failed is a warning until the next.
func TestHealth_Backup(t *testing.T) {
	h := newHouse(t)
	proxy := h.through()[0]
	h.configure("@yearly", "")
	d, _ := h.protected()
	proxy.Cut()
	h.backup(d, server.JobFailed)
	h.troubled(d, server.ClusterWarning, "the last backup failed: no member can serve")
	judged(t, d, server.ClusterWarning, "the last backup failed: ")
	proxy.Resume()
	await(t, "a backup", func() bool { return h.ended(d, h.ask(d).ID).State == server.JobSucceeded })
	h.ok(d)
	judged(t, d, server.ClusterOK, "")
}

// TestHealth_Stored: a defect that a look or a verification finds is reported
// until it is gone.
func TestHealth_Stored(t *testing.T) {
	h := newHouse(t)
	h.looks = often
	d, first := h.protected()
	m := h.manifest(d, first.Snapshot)
	data := h.read(m.DataKey())
	other := func(by time.Duration, change func(*backup.Manifest)) *backup.Manifest {
		another := *m
		another.StartedAt = m.StartedAt.Add(by)
		change(&another)
		another.ID = backup.NewDataName(another.StartedAt).WithRevision(m.Revision)
		return &another
	}
	suspect := other(time.Second, func(m *backup.Manifest) { m.Suspect = []string{"a member answered another hash"} })
	future := other(365*24*time.Hour, func(*backup.Manifest) {})
	copied := *m
	copied.Revision, copied.ID = m.Revision+1, m.ID.DataName().WithRevision(m.Revision+1)

	spool := filepath.Join(h.dir, "spool")
	for _, c := range []struct {
		name           string
		do, undo       func()
		state, problem string
	}{
		{"suspect", func() { h.create(suspect) }, func() { h.rm(suspect) },
			server.ClusterFailure, "the newest snapshot, " + string(suspect.ID) + ", is suspect"},
		{"data missing", func() { h.remove(m.DataKey()) }, func() { h.write(m.DataKey(), data) },
			server.ClusterFailure, "the data of snapshot " + string(m.ID) + " is not in the repository"},
		{"copied", func() { h.create(&copied) }, func() { h.rm(&copied) },
			server.ClusterFailure, "two manifests refer to the data of snapshot"},
		{"a clock was wrong", func() { h.create(future) }, func() { h.rm(future) },
			server.ClusterWarning, "snapshot " + string(future.ID) + " is from the future"},
		{"a verification failed", func() {
			h.must(os.Rename(spool, spool+".away"))
			h.verify(d, string(m.ID))
		}, func() {
			h.must(os.Rename(spool+".away", spool))
			h.verify(d, string(m.ID))
		}, server.ClusterWarning, "the last verification failed: "},
		{"a defect", func() { h.damage(m.DataKey()); h.verify(d, server.Latest) }, func() {
			h.write(m.DataKey(), data)
			h.verify(d, string(m.ID))
		}, server.ClusterFailure, "the stored snapshot " + string(m.ID) + " is damaged: "},
	} {
		c.do()
		h.troubled(d, c.state, c.problem)
		judged(t, d, c.state, c.problem)
		c.undo()
		h.ok(d)
		judged(t, d, server.ClusterOK, "")
		if t.Failed() {
			t.Fatalf("this was %q", c.name)
		}
	}
}

// TestHealth_Gone: a defect ends with its snapshot. It is a failure if no snapshot
// is left.
func TestHealth_Gone(t *testing.T) {
	h := newHouse(t)
	h.looks = often
	d, first := h.protected()
	m := h.manifest(d, first.Snapshot)
	h.put("a")
	newest := h.manifest(d, h.backup(d, server.JobSucceeded).Snapshot)
	h.damage(newest.DataKey())
	h.verify(d, server.Latest)
	h.troubled(d, server.ClusterFailure, string(newest.ID)+" is damaged")
	h.rm(newest)
	h.ok(d)
	judged(t, d, server.ClusterOK, "")
	h.rm(m)
	h.troubled(d, server.ClusterFailure, "the repository no longer holds a verified snapshot")
	judged(t, d, server.ClusterFailure, "the repository no longer holds a verified snapshot")
}
