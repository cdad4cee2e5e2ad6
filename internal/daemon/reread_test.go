package daemon_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/server"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// TestReread_Beside: a backup does not wait for a verification of its cluster, nor for its
// turn.
func TestReread_Beside(t *testing.T) {
	h := newHouse(t)
	gate := h.gated()
	h.edit("  spool:", "  concurrency: 1\n  spool:")
	d, first := h.protected()
	h.put("a")
	m := h.manifest(d, first.Snapshot)
	held := gate.hold(http.MethodGet, m.DataKey())
	verification, err := d.StartVerification(inMain("prod"), first.Snapshot)
	h.must(err)
	held.reached()
	if got := h.backup(d, server.JobSucceeded); got.Snapshot == first.Snapshot {
		t.Errorf("got %+v", got)
	}
	if j := h.job(d, "it", func(j server.Job) bool { return j.ID == verification.ID }); j.State != server.JobRunning {
		t.Errorf("the verification was not left alone: %+v", j)
	}
	held.release()
	if j := h.ended(d, verification.ID); j.State != server.JobSucceeded || j.Snapshot != first.Snapshot {
		t.Errorf("got %+v", j)
	}
}

// TestReread_EndsBeside: a verification that ends leaves the backup beside it its
// connections.
func TestReread_EndsBeside(t *testing.T) {
	h := newHouse(t)
	proxy := h.through()[0]
	h.configure("@yearly", "")
	d, first := h.protected()
	h.put("a")
	_, err := h.client.Put(t.Context(), "large", strings.Repeat("x", 300<<10))
	h.must(err)
	proxy.StallAfter(testserver.ToClient, 100<<10) // in the stream
	j, err := d.StartBackup(inMain("prod"))
	h.must(err)
	h.job(d, "the stream", func(now server.Job) bool {
		return now.ID == j.ID && (now.Stage == string(backup.StageReceive) || now.Stage == string(backup.StageStore))
	})
	verification, err := d.StartVerification(inMain("prod"), first.Snapshot)
	h.must(err)
	if v := h.ended(d, verification.ID); v.State != server.JobSucceeded {
		t.Errorf("got %+v", v)
	}
	proxy.Resume()
	if got := h.ended(d, j.ID); got.State != server.JobSucceeded {
		t.Errorf("got %+v", got)
	}
}

// TestReread_Missed: a verification that was missed while the host slept or the daemon was
// down is caught up, and metrics and health tell of it from the repository.
func TestReread_Missed(t *testing.T) {
	h := newHouse(t)
	h.configure("@yearly", "    verify: {schedule: \"0 3 * * *\"}")
	taken := h.taken() // long before somebody verifies
	const (
		last     = "backupd_last_verification_timestamp_seconds{"
		deadline = "backupd_verification_deadline_timestamp_seconds{"
	)
	verify := func(d interface{ Jobs() []server.Job }) (found []server.Job) {
		for _, j := range d.Jobs() {
			if j.Kind == "verify" {
				found = append(found, j)
			}
		}
		return found
	}
	d := h.daemon()
	stop := h.run(d)
	got := h.job(d, "the verification that was never done", func(j server.Job) bool {
		return j.Kind == "verify" && j.State == server.JobSucceeded
	})
	if got.Reason != "caught up" || got.Snapshot != string(taken.ID) {
		t.Errorf("got %+v", got)
	}
	before := series(t, d, last)
	if len(before) != 1 || len(series(t, d, deadline)) != 1 {
		t.Errorf("got %v, %v", before, series(t, d, deadline))
	}
	h.ok(d)
	stop()

	h.configure("@yearly", "    verify: {schedule: \"0 3 * * *\"}\n    labels: {a: b}")
	again := h.daemon()
	stop = h.run(again)
	await(t, "what the repository says", func() bool {
		got := series(t, again, last)
		return len(got) == 1 && got[0] == before[0]
	})
	if jobs := verify(again); len(jobs) != 0 {
		t.Errorf("nothing was missed: %+v", jobs)
	}
	stop()

	// Three days without electricity.
	h.clock.put(72 * time.Hour)
	h.endpoints = []string{"http://127.0.0.1:1"} // so that the old snapshot is all there is
	h.configure("@yearly", "    verify: {schedule: \"0 3 * * *\"}")
	h.damage(taken.DataKey()) // so that it is read indeed
	third := h.daemon()
	h.run(third)
	got = h.job(third, "the verification that was missed", func(j server.Job) bool {
		return j.Kind == "verify" && j.State != server.JobRunning
	})
	if got.Reason != "caught up" || got.State != server.JobFailed || !strings.Contains(got.Error, "bytes changed") {
		t.Errorf("got %+v", got)
	}
}
