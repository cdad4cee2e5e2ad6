package daemon_test

import (
	"crypto/x509"
	"errors"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/etcd-backupd/backupd/internal/notify"
	"github.com/etcd-backupd/backupd/internal/record"
	"github.com/etcd-backupd/backupd/internal/server"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// restarted runs and ends a daemon that has protected the cluster, and then lets the
// world change.
func (h *house) restarted(change func()) {
	h.t.Helper()
	d := h.daemon()
	end := h.run(d)
	h.ok(d)
	h.looked(d)
	end()
	change()
}

// TestRestart_StoreAway: a daemon that starts while the store is away says what was
// known and since when, and receives what the store is to get.
func TestRestart_StoreAway(t *testing.T) {
	h := newHouse(t)
	h.looks = often
	h.configure("@hourly", "")
	h.restarted(h.away)
	d := h.daemon()
	if len(series(t, d, "backupd_last_success_timestamp_seconds{")) != 1 ||
		len(series(t, d, "backupd_repository_last_read_timestamp_seconds{")) != 1 ||
		!counts(t, d, `backupd_repository_read{cluster="prod",repository="main"} 0`) {
		t.Error("the metrics do not say what was known, or not that it is from before")
	}
	h.clock.put(3 * time.Hour)
	if d := h.daemon(); d.Ready() == nil {
		t.Error("a restart made a cluster green that was not backed up for three hours")
	}
	h.clock.put(0)

	h.run(d)
	h.put("a")
	if got := h.backup(d, server.JobFailed); !strings.Contains(got.Error, "waits in") || len(h.pending()) != 1 {
		t.Fatalf("nothing waits: %+v", got)
	}
	h.troubled(d, server.ClusterFailure, "is not at its address")
	streams := h.streams()
	h.back()
	h.ok(d)
	if len(h.pending()) != 0 || h.streams() != streams ||
		!counts(t, d, `backupd_repository_read{cluster="prod",repository="main"} 1`) {
		t.Errorf("pending %v, %d streams", h.pending(), h.streams()-streams)
	}
}

// TestRestart_Another: the record demands its repository. It makes no other one
// believed, and is no reason to make one.
func TestRestart_Another(t *testing.T) {
	for name, instead := range map[string]func(h *house){
		"another repository": func(h *house) {
			other := newHouse(h.t)
			other.taken()
			h.must(os.Rename(other.folder(), h.folder()))
		},
		"an empty folder": func(h *house) { h.must(os.Mkdir(h.folder(), 0o700)) },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			h.looks = often
			h.edit(`/repository"}`, `/repository", create-if-missing: true}`)
			h.restarted(func() { h.away(); instead(h) })
			files := listing(t, h.folder())
			d := h.daemon()
			stop := h.run(d)
			h.put("a")
			h.backup(d, server.JobFailed)
			if c := d.Clusters()[0]; c.State != server.ClusterFailure || !strings.Contains(c.Problem, "at the address") &&
				!strings.Contains(c.Problem, notThere) {
				t.Errorf("got %+v", c)
			}
			if after := listing(t, h.folder()); after != files || len(h.pending()) != 1 {
				t.Errorf("in the folder: %s, before %s; pending %v", after, files, h.pending())
			}
			stop()
			// That it was replaced on purpose is said by removing the record and what waits.
			h.must(os.Remove(record.Path(h.dir+"/spool", "main", "prod")))
			beside := strings.TrimSuffix(h.pending()[0].Path, "spool") + "pending.json"
			h.must(errors.Join(os.Remove(h.pending()[0].Path), os.Remove(beside)))
			d = h.daemon()
			h.run(d)
			h.backup(d, server.JobSucceeded)
		})
	}
}

// TestRestart_BadRecord: a record that cannot be true is ignored, and is no reason not
// to start.
func TestRestart_BadRecord(t *testing.T) {
	h := newHouse(t)
	h.looks = often
	h.restarted(h.away)
	path := record.Path(h.dir+"/spool", "main", "prod")
	raw, err := os.ReadFile(path)
	h.must(err)
	for _, text := range []string{"{", strings.ReplaceAll(string(raw), `"writtenAt": "20`, `"writtenAt": "21`)} {
		h.must(os.WriteFile(path, []byte(text), 0o600))
		log := &strings.Builder{}
		h.log = slog.NewTextHandler(log, nil)
		d := h.daemon()
		if c := d.Clusters()[0]; !c.LastSuccess.IsZero() || !strings.Contains(log.String(), "level=ERROR") ||
			!strings.Contains(log.String(), path) {
			t.Errorf("%.40s: %+v\n%s", text, c, log)
		}
	}
	// Neither is one of another address.
	h.must(os.WriteFile(path, raw, 0o600))
	h.edit("/repository", "/elsewhere")
	if c := h.daemon().Clusters()[0]; !c.LastSuccess.IsZero() {
		t.Errorf("got %+v", c)
	}
}

// TestNotifications_Restart: what was told is not told again by the next process,
// and its end is.
func TestNotifications_Restart(t *testing.T) {
	h := newHouse(t)
	told := h.webhook()
	d := h.daemon()
	stop := h.run(d)
	h.ok(d)
	h.away()
	h.put("a")
	h.backup(d, server.JobFailed)
	await(t, "the failure", func() bool { return len(told()) == 1 })
	stop()
	d = h.daemon()
	stop = h.run(d)
	h.backup(d, server.JobFailed)
	stop()
	h.back()
	d = h.daemon()
	h.run(d)
	h.ok(d)
	await(t, "the recovery", func() bool { return slices.Contains(kinds(told()), "backup recovery") })
	if diff := cmp.Diff([]string{"backup failure", "backup recovery"}, kinds(told())); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
	if got := told(); !got[1].Since.Equal(got[0].Time) {
		t.Errorf("it failed since %v, and the recovery says %v", got[0].Time, got[1].Since)
	}
}

// TestReload_NewReceiver: a receiver that a reload adds is told of what fails already.
func TestReload_NewReceiver(t *testing.T) {
	h := newHouse(t)
	d, _ := h.protected()
	h.away()
	h.put("a")
	h.backup(d, server.JobFailed)
	told := h.webhook()
	h.reload(d)
	await(t, "the failure", func() bool { return len(told()) == 1 })
	if diff := cmp.Diff([]string{"backup failure"}, kinds(told())); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
}

// TestNotifications_Prune: a prune that fails is an event of its own, and so is its
// end. The backup before it has succeeded.
func TestNotifications_Prune(t *testing.T) {
	h := newHouse(t)
	g := h.gated()
	told := h.webhook()
	h.edit("keep-last: 3", "keep-last: 1")
	d, _ := h.protected()
	denied := g.refuse("DELETE", "prod/")
	h.put("a")
	h.backup(d, server.JobSucceeded)
	denied.release()
	h.put("a")
	h.backup(d, server.JobSucceeded)
	await(t, "the recovery", func() bool { return len(told()) >= 2 })
	if diff := cmp.Diff([]string{"prune prune-failure", "prune recovery"}, kinds(told())); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
}

// TestNotifications_Certificate: a certificate that must be renewed is told, to
// everybody if it belongs to no cluster alone, and so is its renewal.
func TestNotifications_Certificate(t *testing.T) {
	h := newHouse(t)
	h.looks = often
	authority := testserver.NewAuthority(t)
	cert, key := authority.Issue(t, "old", func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().AddDate(-1, 0, 0), time.Now().AddDate(0, 0, 20)
	})
	told := h.webhook()
	h.edit(`listen: "off"`, `listen: "off", cert-file: `+cert+", key-file: "+key)
	h.edit("notifications: [{", "notifications: [{clusters: [prod], ")
	d := h.daemon()
	stop := h.run(d)
	h.ok(d)
	await(t, "the certificate", func() bool { return len(told()) >= 1 })
	h.looked(d)
	stop()
	d = h.daemon()
	h.run(d)
	h.looked(d)
	fresh, _ := authority.Issue(t, "new")
	raw, err := os.ReadFile(fresh)
	h.must(err)
	h.must(os.WriteFile(cert, raw, 0o600))
	await(t, "its renewal", func() bool { return slices.Contains(kinds(told()), "certificate recovery") })
	if diff := cmp.Diff([]string{"certificate certificate-expiring", "certificate recovery"}, kinds(told())); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
	e := told()[0]
	if e.File != cert || e.Expires.IsZero() || e.Cluster != "" || !strings.Contains(e.Error, "expires on") {
		t.Errorf("got %+v", e)
	}
}

// TestNotifications_NewHistory: a backup that finds another history is an event of its
// own kind.
func TestNotifications_NewHistory(t *testing.T) {
	h := newHouse(t)
	h.put("a")
	h.taken()
	h.etcd, h.client = testserver.StartCluster(t, testserver.Options{}), nil // under the same name
	h.put("b")
	h.configure("@yearly", "")
	told := h.webhook()
	d := h.daemon()
	h.run(d)
	h.backup(d, server.JobSuspect)
	await(t, "the history", func() bool { return len(told()) >= 1 })
	if e := told()[0]; e.Kind != notify.NewHistory || e.Job != "backup" || e.Error == "" {
		t.Errorf("got %+v", e)
	}
}
