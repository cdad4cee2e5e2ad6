package daemon

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/etcd-backupd/backupd/internal/notify"
	"github.com/etcd-backupd/backupd/internal/schedule"
	"github.com/etcd-backupd/backupd/internal/server"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// webhook adds a receiver of everything to the configuration, and returns what
// it was told.
func (h *house) webhook(on ...string) func() []notify.Event {
	h.t.Helper()
	var mu sync.Mutex
	var told []notify.Event
	srv := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var e notify.Event
		if err := json.NewDecoder(r.Body).Decode(&e); err != nil {
			h.t.Error(err)
		}
		mu.Lock()
		defer mu.Unlock()
		told = append(told, e)
	}))
	h.t.Cleanup(srv.Close)
	kinds := ""
	if len(on) > 0 {
		kinds = "on: [" + strings.Join(on, ", ") + "], "
	}
	h.edit("/spool}", "/spool}\n  notifications: [{"+kinds+"webhook: {url: \""+srv.URL+"\"}}]")
	return func() []notify.Event {
		mu.Lock()
		defer mu.Unlock()
		return slices.Clone(told)
	}
}

func kinds(events []notify.Event) []string {
	out := []string{}
	for _, e := range events {
		out = append(out, e.Job+" "+string(e.Kind))
	}
	return out
}

// TestNotifications: a failure is told once, however often it comes, and so is
// that it is over.
func TestNotifications(t *testing.T) {
	h := newHouse(t)
	told := h.webhook()
	d := h.daemon()
	store := breakable(d.all()[0])
	h.run(d)
	h.await("the first backup", func() bool { return d.Clusters()[0].State == server.ClusterOK })
	backup := func(want string) {
		t.Helper()
		h.put("a")
		var j server.Job
		h.await("the job before to end", func() (ok bool) {
			var err error
			j, err = d.StartBackup("prod")
			return err == nil
		})
		if got := h.ended(d, j.ID); got.State != want {
			t.Fatalf("got %+v", got)
		}
	}
	store.down.Store(true)
	backup(server.JobFailed)
	backup(server.JobFailed)
	store.down.Store(false)
	backup(server.JobSucceeded)
	backup(server.JobSucceeded)
	h.await("the recovery", func() bool { return len(told()) >= 2 })
	if diff := cmp.Diff([]string{"backup failure", "backup recovery"}, kinds(told())); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
	failure, recovery := told()[0], told()[1]
	if !strings.Contains(failure.Error, errDown.Error()) || failure.Hint != "do something" || failure.Cluster != "prod" || recovery.Snapshot == "" || !recovery.Since.Equal(failure.Time) {
		t.Errorf("got %+v and %+v", failure, recovery)
	}
}

// TestNotifications_Started: a start is told once for all tries, and a slot in
// which nothing has changed is a success.
func TestNotifications_Started(t *testing.T) {
	h := newHouse(t)
	told := h.webhook("start", "success", "failure")
	h.edit("retries: 0", "retries: 1")
	d := h.daemon()
	store := breakable(d.all()[0])
	store.hold = make(chan struct{})
	h.run(d)
	h.await("the first upload", func() bool { return hasRecord(h) })
	store.down.Store(true) // the first try fails, the second stores what waits
	close(store.hold)
	h.await("the first try to fail", func() bool {
		return slices.ContainsFunc(d.Jobs(), func(j server.Job) bool { return j.State == server.JobFailed })
	})
	store.down.Store(false)
	if err := d.scheduler.Trigger(jobName(kindBackup, "prod")); err != nil { // ends the pause
		t.Fatal(err)
	}
	h.await("the success", func() bool { return len(told()) >= 2 })
	if diff := cmp.Diff([]string{"backup start", "backup success"}, kinds(told())); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
	g := d.all()[0]
	if _, skipped, err := g.slot(t.Context(), schedule.Scheduled); err != nil || skipped == "" {
		t.Fatalf("skipped %q, %v", skipped, err)
	}
	g.done(kindBackup, nil)
	h.await("the skipped slot", func() bool { return len(told()) >= 3 })
	if got := told()[2]; got.Kind != notify.Succeeded || got.Snapshot != d.Clusters()[0].Snapshot {
		t.Errorf("got %+v", got)
	}
}

// TestNotifications_Sidecar: who had nothing to do tells of a success only as
// far as the repository shows one.
func TestNotifications_Sidecar(t *testing.T) {
	h := newHouse(t)
	h.real = testserver.StartCluster(t, testserver.Options{Size: 3})
	var worker, other *Daemon
	var told func() []notify.Event
	for _, ep := range h.real.Endpoints() {
		h.configure("@hourly", "    local-endpoint: "+ep)
		events := h.webhook("start", "success", "failure", "recovery")
		d := h.daemon()
		defer d.close()
		survey, err := d.all()[0].source.Survey(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		switch passed, err := d.all()[0].worker(t.Context(), survey); {
		case err != nil:
			t.Fatal(err)
		case passed == "":
			worker = d
		default:
			other, told = d, events
		}
	}
	go func() { _ = other.notifier.Run(t.Context()) }()
	turn := func(d *Daemon) {
		t.Helper()
		g := d.all()[0]
		_, _, err := g.slot(t.Context(), schedule.Scheduled)
		if err != nil {
			t.Fatal(err)
		}
		g.done(kindBackup, err)
	}
	turn(other) // nothing is stored yet: there is nothing to tell
	turn(worker)
	turn(other)
	other.all()[0].done(kindBackup, errDown) // as by hand
	turn(other)                              // nothing new since
	h.put("a")
	turn(worker)
	turn(other)
	h.await("the recovery", func() bool { return len(told()) >= 3 })
	if diff := cmp.Diff([]string{"backup success", "backup failure", "backup recovery"}, kinds(told())); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
}
