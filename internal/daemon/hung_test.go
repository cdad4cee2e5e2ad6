package daemon_test

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/server"
)

// TestHungStore: a store that takes a request and never answers holds no turn of a
// cluster that is kept elsewhere.
func TestHungStore(t *testing.T) {
	t.Parallel() // it waits
	h := newHouse(t)
	g := h.gated()
	h.configure("@yearly", fmt.Sprintf("    repository: main\n  - name: other\n    repository: near\n"+
		"    endpoints: [%s]\n    snapshot: {schedule: \"@yearly\"}\n", h.etcd.Endpoints()[0]))
	h.edit("repositories:\n", "repositories:\n  near: {url: \"file://"+h.dir+"/repository\"}\n")
	h.edit("/spool}", "/spool}\n  concurrency: 1")
	h.init("near")
	d := h.daemon()
	h.run(d)
	other := server.Key{Repository: "near", Cluster: "other"}
	await(t, "the backups of the start", func() bool {
		for _, c := range d.Clusters() {
			if c.Snapshot == "" || c.Running {
				return false
			}
		}
		return true
	})
	upload := g.hold("PUT", "prod/data/")
	hung := h.start(d.StartBackup(inMain("prod")))
	upload.reached()
	good := h.start(d.StartBackup(other))
	if got := h.ended(d, good.ID); got.State != server.JobSucceeded {
		t.Errorf("got %+v", got)
	}
	got := h.job(d, "the hung one", func(j server.Job) bool { return j.ID == hung.ID })
	if got.State != server.JobRunning {
		t.Errorf("it did not hang: %+v", got)
	}
	upload.release()
	if got := h.ended(d, hung.ID); got.State != server.JobSucceeded {
		t.Errorf("got %+v", got)
	}
}

// TestPin_Twice: the pin of a snapshot that is pinned is a conflict, and the reason that
// was given first stays.
func TestPin_Twice(t *testing.T) {
	h := newHouse(t)
	d, c := h.protected()
	h.must(d.Pin(t.Context(), inMain("prod"), c.Snapshot, "for the audit"))
	if err := d.Pin(t.Context(), inMain("prod"), c.Snapshot, "for fun"); !errors.Is(err, server.ErrConflict) ||
		!strings.Contains(err.Error(), "for the audit") {
		t.Errorf("got %v", err)
	}
	s, err := d.Snapshot(t.Context(), inMain("prod"), c.Snapshot)
	h.must(err)
	if s.PinReason != "for the audit" {
		t.Errorf("got %+v", s)
	}
}

// TestPhases: each phase of a backup has taken some time, also one of a database so small
// that it comes in one piece.
func TestPhases(t *testing.T) {
	h := newHouse(t)
	d, _ := h.protected()
	n := 0
	for line := range strings.Lines(scrape(t, d)) {
		if !strings.HasPrefix(line, "backupd_last_run_phase_duration_seconds{") {
			continue
		}
		n++
		fields := strings.Fields(line)
		if v, err := strconv.ParseFloat(fields[len(fields)-1], 64); err != nil || v <= 0 {
			t.Errorf("%s", line)
		}
	}
	if n != 7 { // wait, receive, store, inspect, compare, verify, total
		t.Errorf("%d phases", n)
	}
}
