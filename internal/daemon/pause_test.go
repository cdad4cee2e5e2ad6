package daemon_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/daemon"
	"github.com/etcd-backupd/backupd/internal/duty"
	"github.com/etcd-backupd/backupd/internal/repository/pause"
	"github.com/etcd-backupd/backupd/internal/server"
)

const pausedUntil = "backupd_cluster_paused_until_timestamp_seconds"

// pause pauses the cluster as the command does.
func (h *house) pause(length time.Duration) *pause.Pause {
	h.t.Helper()
	now := time.Now()
	p, err := pause.Set(h.t.Context(), stored(h.store("main"), "prod"),
		pause.Pause{Until: now.Add(length), Reason: "an upgrade", By: "root@host"}, now)
	h.must(err)
	return p
}

func (h *house) resume() {
	h.t.Helper()
	_, err := pause.End(h.t.Context(), stored(h.store("main"), "prod"), time.Now())
	h.must(err)
}

// skipped waits for a slot of the backup that a pause has withheld.
func (h *house) skipped(d *daemon.Daemon) server.Job {
	h.t.Helper()
	return h.job(d, "a slot in a pause", func(j server.Job) bool {
		return j.Kind == "backup" && j.State == server.JobSkipped && j.Pause != nil
	})
}

// TestPause: a daemon takes no backup of a paused cluster, says so, and goes on when it is
// resumed, without a restart.
func TestPause(t *testing.T) {
	h := newHouse(t)
	h.looks = often
	h.configure("@every 1s", "")
	told := h.webhook("success", "failure")
	d, first := h.protected()
	p := h.pause(time.Hour)
	h.skipped(d)
	h.looked(d)
	attempt, n := d.Clusters()[0].LastAttempt, len(told())
	h.put("in the pause")
	streams := h.streams()
	before := len(d.Jobs())
	await(t, "another slot", func() bool { return len(d.Jobs()) > before })

	c := d.Clusters()[0]
	want := &server.Pause{Until: p.Until, Reason: "an upgrade", By: "root@host", At: p.At}
	if diff := cmp.Diff(want, c.Pause); diff != "" {
		t.Errorf("the pause (-want +got):\n%s", diff)
	}
	if c.State != server.ClusterOK || !c.NextRun.Equal(p.Until) || !c.LastAttempt.Equal(attempt) ||
		c.Snapshot != first.Snapshot || h.streams() != streams || len(told()) != n {
		t.Errorf("in the pause, after %d streams and %d notifications: %+v", h.streams()-streams, len(told())-n, c)
	}
	if got := series(t, d, pausedUntil+"{"); len(got) != 1 || strings.HasSuffix(got[0], " 0") {
		t.Errorf("got %q", got)
	}

	// Much later it is no failure, and what is asked for is done all the same.
	h.clock.put(30 * time.Minute)
	if err := d.Ready(); err != nil || d.Clusters()[0].State != server.ClusterOK {
		t.Errorf("half an hour later: %v, %+v", err, d.Clusters()[0])
	}
	if j := h.ask(d); j.Pause == nil || j.Pause.Reason != "an upgrade" {
		t.Errorf("the answer does not say that the cluster is paused: %+v", j)
	} else if got := h.ended(d, j.ID); got.State != server.JobSucceeded || got.Pause == nil {
		t.Errorf("got %+v", got)
	}

	h.put("after it")
	h.resume()
	h.job(d, "a backup after the pause", func(j server.Job) bool {
		return j.State == server.JobSucceeded && j.Pause == nil && j.Snapshot != first.Snapshot && j.Reason != "manual"
	})
	if c := h.ok(d); c.Pause != nil {
		t.Errorf("resumed: %+v", c)
	}
	if got := series(t, d, pausedUntil+"{"); len(got) != 1 || !strings.HasSuffix(got[0], " 0") {
		t.Errorf("resumed: %q", got)
	}
}

// TestPause_Ends: when a pause has ended by itself, or by somebody, the next look begins a backup:
// the next slot may be a day away.
func TestPause_Ends(t *testing.T) {
	for name, end := range map[string]func(*house){
		"resumed":    (*house).resume,
		"at its end": func(h *house) { h.clock.put(61 * time.Minute) },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			h.looks = often
			d, first := h.protected()
			h.pause(time.Hour)
			await(t, "the pause to be seen", func() bool { return d.Clusters()[0].Pause != nil })
			h.put("in the pause")
			end(h)
			await(t, "a backup", func() bool {
				c := d.Clusters()[0]
				return c.Pause == nil && c.Snapshot != first.Snapshot
			})
			n := len(d.Jobs())
			h.looked(d)
			if got := len(d.Jobs()); got != n || n != 2 {
				t.Errorf("%d jobs, then %d: want one backup, once", n, got)
			}
		})
	}
}

// TestPause_Damage: a pause does not silence damage.
func TestPause_Damage(t *testing.T) {
	h := newHouse(t)
	h.looks = often
	d, c := h.protected()
	h.pause(time.Hour)
	await(t, "the pause to be seen", func() bool { return d.Clusters()[0].Pause != nil })
	h.damage(h.manifest(d, c.Snapshot).DataKey())
	if j := h.verify(d, c.Snapshot); j.State != server.JobFailed {
		t.Errorf("got %+v", j)
	}
	if c := h.troubled(d, server.ClusterFailure, "damaged"); c.Pause == nil {
		t.Errorf("got %+v", c)
	}
	if err := d.Ready(); err == nil {
		t.Error("ready")
	}
}

// TestPause_Ignored: a mark that counts for nothing is a warning, and backups go on.
func TestPause_Ignored(t *testing.T) {
	h := newHouse(t)
	h.looks = often
	d, _ := h.protected()
	at := time.Now().UTC().Truncate(time.Second)
	key := backup.Key{Cluster: "prod", Kind: backup.KindPause, Data: backup.NewDataName(at), Until: at.AddDate(1, 0, 0)}
	h.must(h.store("main").Create(t.Context(), key.String(), strings.NewReader("{}")))
	if c := h.troubled(d, server.ClusterWarning, "at most 30 days"); !strings.Contains(c.Hint, "backupd resume") ||
		c.Pause != nil {
		t.Errorf("got %+v", c)
	}
	h.backup(d, server.JobSucceeded)
	h.resume()
	h.ok(d)
}

// TestPause_Unreadable: while the repository cannot be read, a slot does what was last known, and
// says that it cannot be read; a process that knows nothing takes its backup.
func TestPause_Unreadable(t *testing.T) {
	h := newHouse(t)
	h.looks = often
	h.configure("@every 1s", "")
	d, _ := h.protected()
	h.pause(time.Hour)
	h.skipped(d)
	h.put("in the pause")
	streams := h.streams()
	h.unreadable()
	c := h.troubled(d, server.ClusterWarning, "the repository cannot be read")
	before := len(d.Jobs())
	await(t, "another slot", func() bool { return len(d.Jobs()) > before })
	if j := h.skipped(d); h.streams() != streams || c.Pause == nil || j.Error != "" || len(h.pending()) != 0 {
		t.Errorf("%d streams, %d pending, %+v, %+v", h.streams()-streams, len(h.pending()), c, j)
	}
	// A day later nobody knows whether it was resumed.
	h.clock.put(25 * time.Hour)
	await(t, "a snapshot that waits", func() bool { return len(h.pending()) > 0 })
	if c := d.Clusters()[0]; c.Pause != nil {
		t.Errorf("a day later: %+v", c)
	}
}

// TestPause_Once: one slot in a pause is no failure, does nothing and says why. Its metrics
// tell the pause, and go on to tell what was before.
func TestPause_Once(t *testing.T) {
	h := newHouse(t)
	h.configure("@hourly", "")
	told := h.webhook("success", "failure")
	before := h.slot()
	p := h.pause(time.Hour)
	h.put("in the pause")
	streams := h.streams()
	if _, out := h.once(); out.Result != duty.Paused || out.Err != nil || out.Reason != p.String() ||
		h.streams() != streams {
		t.Errorf("got %+v", out)
	}
	paused := h.slot()
	if got := gauge(t, paused, pausedUntil); !strings.HasPrefix(got, pausedUntil+ofProd+"} 1.") {
		t.Errorf("got %s", got)
	}
	for _, name := range []string{success, "backupd_last_attempt_timestamp_seconds"} {
		if got, want := gauge(t, paused, name), gauge(t, before, name); got != want {
			t.Errorf("%s, before it was %s", got, want)
		}
	}
	for result, want := range map[string]string{"skipped": "1", "failed": "0"} { // h.once is in no file
		if line := "backupd_backups_total" + ofProd + `,result="` + result + `"} ` + want; !slices.Contains(paused, line) {
			t.Errorf("no %s in:\n%s", line, strings.Join(paused, "\n"))
		}
	}
	h.resume()
	if got := gauge(t, h.slot(), pausedUntil); got != pausedUntil+ofProd+"} 0" {
		t.Errorf("resumed: %s", got)
	}
	if diff := cmp.Diff([]string{"backup success", "backup success"}, kinds(told())); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
}

// TestPause_Prune: nothing is removed in a pause, not even after a backup by hand.
func TestPause_Prune(t *testing.T) {
	h := newHouse(t)
	h.edit("keep-last: 3", "keep-last: 1")
	h.looks = often
	d, _ := h.protected()
	h.pause(time.Hour)
	await(t, "the pause to be seen", func() bool { return d.Clusters()[0].Pause != nil })
	for range 2 {
		h.put("key")
		h.backup(d, server.JobSucceeded)
	}
	if got, err := d.Snapshots(t.Context(), inMain("prod"), "", 10); err != nil || len(got) != 3 {
		t.Fatalf("%d snapshots, %v", len(got), err)
	}
	h.resume()
	h.put("key")
	await(t, "a prune", func() bool {
		got, err := d.Snapshots(t.Context(), inMain("prod"), "", 10)
		return err == nil && len(got) == 1
	})
}
