package daemon_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/etcd-backupd/backupd/internal/server"
	"github.com/etcd-backupd/backupd/internal/spool"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// TestOutage: the store is down, and is back long before the next slot. The
// received database is stored then, and etcd is not asked for it again.
func TestOutage(t *testing.T) {
	h := newHouse(t)
	h.looks = often
	d, _ := h.protected()
	h.put("a")
	h.away()
	if got := h.backup(d, server.JobFailed); !strings.Contains(got.Error, "waits in") {
		t.Fatalf("without the store: %+v", got)
	}
	h.looked(d) // still away
	if c := d.Clusters()[0]; c.State != server.ClusterWarning || len(h.pending()) != 1 {
		t.Fatalf("without the store: %+v, pending %v", c, h.pending())
	}
	streams := h.streams()
	phases := series(t, d, "backupd_last_run_phase_duration_seconds{")
	h.back()
	h.ok(d)
	// It was not received now.
	if got := series(t, d, "backupd_last_run_phase_duration_seconds{"); !slices.Equal(got, phases) || len(phases) < 4 {
		t.Errorf("phases %q, before %q", got, phases)
	}
	list, err := d.Snapshots(t.Context(), inMain("prod"), "", 10)
	if err != nil || len(list) != 2 || d.Clusters()[0].Snapshot != string(list[0].ID) || len(h.pending()) != 0 {
		t.Errorf("got %+v, %v; pending %v", list, err, h.pending())
	}
	if h.streams() != streams {
		t.Error("etcd was asked for its database again")
	}
	if got := d.Jobs()[0]; got.State != server.JobSucceeded || got.Kind != "backup" || got.Snapshot != string(list[0].ID) {
		t.Errorf("on the board: %+v", got)
	}
}

// TestOutage_Old: two snapshots wait, the host is off for eight days, and the store is
// back when the daemon starts. Both are stored: nothing is dropped for its age before the
// store could take it.
func TestOutage_Old(t *testing.T) {
	h := newHouse(t)
	d := h.daemon()
	stop := h.run(d)
	first := h.ok(d)
	h.away()
	for range 2 {
		h.put("a")
		h.backup(d, server.JobFailed)
	}
	stop()
	waiting := h.pending()
	if len(waiting) != 2 {
		t.Fatalf("pending is %v", waiting)
	}
	for _, p := range waiting {
		h.age(p, 8*24*time.Hour)
	}
	h.back()
	d = h.daemon()
	h.run(d)
	await(t, "all to be stored, or dropped", func() bool { return len(h.pending()) == 0 })
	newest := h.ok(d)
	list, err := d.Snapshots(t.Context(), inMain("prod"), "", 10)
	if err != nil || len(list) != 3 || newest.Snapshot == first.Snapshot {
		t.Errorf("got %+v, %v; newest %s", list, err, newest.Snapshot)
	}
}

// age makes a snapshot that waits older.
func (h *house) age(p spool.Pending, by time.Duration) {
	h.t.Helper()
	file, err := (&spool.Folder{}).Claim(p)
	h.must(err)
	c := file.Pending().Capture
	c.StartedAt = c.StartedAt.Add(-by)
	h.must(file.Remember(p.Repository, c))
	_, err = file.Leave(errors.New("the store is away"))
	h.must(err)
}

// TestOutage_Slots: in each slot etcd is asked once more. A backup by hand is of
// the cluster as it is now.
func TestOutage_Slots(t *testing.T) {
	h := newHouse(t)
	h.configure("@hourly", "")
	h.edit("retries: 0", "retries: 5")
	d, _ := h.protected()
	h.away()
	h.put("a")
	asked := func(try string, streams int, run func()) {
		t.Helper()
		before := h.streams()
		if run(); h.streams()-before != streams {
			t.Errorf("%s: etcd was asked %d times, want %d", try, h.streams()-before, streams)
		}
	}
	hours := 0
	slot := func() {
		t.Helper()
		hours++
		jobs := len(d.Jobs())
		h.clock.stop(time.Now().Truncate(time.Hour).Add(time.Duration(hours)*time.Hour + time.Second))
		d.Reload(t.Context()) // wakes the scheduler
		await(t, "a scheduled try", func() bool {
			all := d.Jobs()
			return len(all) > jobs && all[0].Reason == "scheduled" && all[0].State != server.JobRunning
		})
	}
	manual := func() { t.Helper(); h.backup(d, server.JobFailed) }
	asked("a slot", 1, slot)
	asked("by hand, in the pause after it", 1, manual)
	asked("by hand, in the pause after that", 0, manual)
	for range 3 { // the tries of the slot come to their end
		asked("by hand, in the pause", 0, manual)
	}
	asked("the next slot", 1, slot)
	if n := len(h.pending()); n != 3 {
		t.Errorf("%d are pending", n)
	}
	h.back()
	h.put("b")
	var got server.Job
	asked("by hand, with the store", 1, func() { got = h.backup(d, server.JobSucceeded) })
	if c := d.Clusters()[0]; c.Snapshot != got.Snapshot {
		t.Errorf("a new run is served with what waited: %+v", c)
	}
	if n := len(pages(t, d, 10)); n != 3 || len(h.pending()) != 0 { // keep-last
		t.Errorf("%d snapshots, pending %v", n, h.pending())
	}
}

// TestOutage_Process: a database that a killed process or a failed try received
// serves the same slot, but not an earlier one.
func TestOutage_Process(t *testing.T) {
	t.Parallel() // it waits in a pause between two tries
	h := newHouse(t)
	h.etcd = testserver.StartCluster(t, testserver.Options{}) // whose streams are counted
	g := h.gated()
	h.configure("@every 1h", "")
	h.taken()
	h.put("a")
	full := g.refuse("PUT", "prod/data/")
	streams := func(tries, want int) {
		t.Helper()
		before := h.streams()
		if d, out := h.once(); out.Err == nil || len(d.Jobs()) != tries ||
			!strings.Contains(out.Err.Error(), "AccessDenied") {
			t.Errorf("%d tries: %+v", len(d.Jobs()), out)
		}
		if got := h.streams() - before; got != want {
			t.Errorf("etcd was asked %d times, want %d", got, want)
		}
	}
	h.edit("retries: 0", "retries: 1")
	streams(2, 1) // with its retry
	h.edit("retries: 1", "retries: 0")
	streams(1, 0) // another process, the same slot
	h.clock.put(61 * time.Minute)
	streams(1, 1)
	h.clock.put(0)
	full.release()
	before := h.streams()
	m := h.taken()
	if d, _ := h.once(); h.streams() != before || len(h.pending()) != 0 || d.Clusters()[0].Snapshot != string(m.ID) {
		t.Errorf("got %s, %d streams", m.ID, h.streams()-before)
	}
}

// TestOutage_Unmounted: a repository that is missing is neither made a second time
// nor taken for an empty one.
func TestOutage_Unmounted(t *testing.T) {
	for name, instead := range map[string]func(h *house){
		"nothing":         func(*house) {},
		"an empty folder": func(h *house) { h.must(os.Mkdir(h.folder(), 0o700)) },
		"another repository": func(h *house) {
			other := newHouse(h.t)
			other.taken()
			h.must(os.Rename(other.folder(), h.folder()))
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			h.looks = often
			d, first := h.protected()
			h.put("a")
			h.away()
			instead(h)
			files := listing(t, h.folder())
			if c := h.troubled(d, server.ClusterWarning, "the repository cannot be read"); c.Hint == "" ||
				c.Snapshot != first.Snapshot {
				t.Errorf("got %+v", c)
			}
			if h.backup(d, server.JobFailed); len(h.pending()) != 1 {
				t.Errorf("pending %v", h.pending())
			}
			h.looked(d)
			if after := listing(t, h.folder()); after != files {
				t.Errorf("in the folder: %s, before %s", after, files)
			}
			streams := h.streams()
			h.back()
			if got := h.ok(d); h.streams() != streams || got.Snapshot == first.Snapshot || len(h.pending()) != 0 {
				t.Errorf("it is back: %+v, %d streams", got, h.streams()-streams)
			}
		})
	}
}

// TestStop: a daemon that is stopped during an upload leaves the snapshot pending,
// reports no failure, and leaves nothing running.
func TestStop(t *testing.T) {
	h := newHouse(t)
	upload := h.gated().hold("PUT", "prod/data/")
	h.configure("@hourly", "")
	told := h.webhook()
	d := h.daemon()
	stop := h.run(d)
	h.received()
	upload.reached()
	stop()
	if d.Ready() != nil || len(told()) != 0 {
		t.Errorf("told %v, ready %v", told(), d.Ready())
	}
	if got := d.Jobs()[0]; got.State != server.JobFailed || got.Ended.IsZero() {
		t.Errorf("on the board: %+v", got)
	}
	if len(h.pending()) != 1 {
		t.Fatalf("pending is %v", h.pending())
	}
	if _, err := d.StartBackup(inMain("prod")); err == nil {
		t.Error("a daemon that was stopped takes orders")
	}
	upload.release()
	streams := h.streams()
	again, _ := h.protected()
	if len(h.pending()) != 0 || h.streams() != streams || len(again.Jobs()) == 0 {
		t.Errorf("pending %v, %d streams", h.pending(), h.streams()-streams)
	}
}

// TestPrune_TimeOut: a prune that does not end is an error of its own, and the
// backup is a success.
func TestPrune_TimeOut(t *testing.T) {
	t.Parallel() // it waits
	h := newHouse(t)
	g := h.gated()
	h.edit("retries: 0", "retries: 0, timeout: 4s")
	h.edit("keep-last: 3", "keep-last: 1")
	d, _ := h.protected()
	hung := g.hold("DELETE", "prod/")
	h.put("a")
	got := h.backup(d, server.JobSucceeded)
	hung.reached()
	c := h.troubled(d, server.ClusterWarning, "old snapshots cannot be removed")
	judged(t, d, server.ClusterWarning, "old snapshots cannot be removed: ")
	if c.Snapshot != got.Snapshot || !counts(t, d, `backupd_prune_errors_total{cluster="prod",repository="main"} 1`) {
		t.Errorf("got %+v", c)
	}
	hung.release()
	h.put("a")
	h.backup(d, server.JobSucceeded)
	judged(t, d, server.ClusterOK, "")
	if left, err := filepath.Glob(filepath.Join(g.s3.Dir(), "x/prod/snapshots/*.json")); err != nil || len(left) != 1 {
		t.Errorf("left are %v, %v", left, err)
	}
}
