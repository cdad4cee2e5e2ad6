package daemon_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/daemon"
	"github.com/etcd-backupd/backupd/internal/notify"
	"github.com/etcd-backupd/backupd/internal/server"
)

// webhook adds a receiver to the configuration, and returns its events.
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

// TestNotifications: a failure is reported once, however often it repeats, and so
// is its end.
func TestNotifications(t *testing.T) {
	h := newHouse(t)
	told := h.webhook()
	d, _ := h.protected()
	backup := func(want string) {
		t.Helper()
		h.put("a")
		h.backup(d, want)
	}
	h.away()
	backup(server.JobFailed)
	backup(server.JobFailed)
	h.back()
	backup(server.JobSucceeded)
	backup(server.JobSucceeded)
	await(t, "the recovery", func() bool { return len(told()) >= 2 })
	if diff := cmp.Diff([]string{"backup failure", "backup recovery"}, kinds(told())); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
	failure, recovery := told()[0], told()[1]
	if !strings.Contains(failure.Error, notThere) || failure.Hint != "do something" || failure.Repository != "main" ||
		failure.Cluster != "prod" ||
		recovery.Snapshot == "" || !recovery.Since.Equal(failure.Time) ||
		!strings.Contains(recovery.Snapshot, fmt.Sprintf("-r%d-", recovery.Revision)) {
		t.Errorf("got %+v and %+v", failure, recovery)
	}
}

// TestNotifications_Started: a start is reported once for all tries, and a slot
// without changes is a success.
func TestNotifications_Started(t *testing.T) {
	h := newHouse(t)
	h.taken()
	h.put("a")
	h.edit("retries: 0", "retries: 1")
	told := h.webhook("start", "success", "failure")
	d := h.daemon()
	h.run(d)
	h.ok(d)
	spool := filepath.Join(h.dir, "spool")
	h.must(os.Rename(spool, spool+".away")) // the first try fails, and leaves nothing to the second
	h.backup(d, server.JobFailed)
	h.must(os.Rename(spool+".away", spool))
	tries := len(d.Jobs())
	await(t, "the end of the pause", func() bool {
		if len(d.Jobs()) == tries {
			d.Trigger() // ends it, once it has begun
		}
		return len(d.Jobs()) > tries
	})
	h.job(d, "the second try", func(j server.Job) bool { return j.State == server.JobSucceeded })
	await(t, "the success", func() bool { return len(told()) >= 2 })
	if diff := cmp.Diff([]string{"backup start", "backup success"}, kinds(told())); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
	h.edit("@yearly", "@every 1s")
	h.reload(d)
	h.job(d, "a slot", func(j server.Job) bool { return j.State == server.JobSkipped })
	await(t, "the skipped slot", func() bool { return len(told()) >= 3 })
	if got := told()[2]; got.Kind != notify.Succeeded || got.Snapshot != d.Clusters()[0].Snapshot {
		t.Errorf("got %+v", got)
	}
}

// TestNotifications_StartedByHand: a run that is asked for while another pauses is
// the rest of that one, whose start was told.
func TestNotifications_StartedByHand(t *testing.T) {
	h := newHouse(t)
	h.taken()
	h.put("a")
	h.edit("retries: 0", "retries: 1")
	told := h.webhook("start", "success", "failure")
	d := h.daemon()
	h.run(d)
	h.ok(d)
	spool := filepath.Join(h.dir, "spool")
	h.must(os.Rename(spool, spool+".away"))
	h.backup(d, server.JobFailed)
	h.must(os.Rename(spool+".away", spool))
	h.backup(d, server.JobSucceeded)
	await(t, "the success", func() bool { return slices.Contains(kinds(told()), "backup success") })
	if diff := cmp.Diff([]string{"backup start", "backup success"}, kinds(told())); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
}

// passive finds a member whose daemon has nothing to do.
func (h *house) passive() int {
	h.t.Helper()
	other := newHouse(h.t) // with a repository of its own
	other.etcd = h.etcd
	for i, ep := range h.etcd.Endpoints() {
		other.sidecar(ep)
		if _, out := other.once(); out.Reason != "" {
			return i
		}
	}
	h.t.Fatal("each works")
	return 0
}

// TestNotifications_Sidecar: a daemon that had nothing to do reports a success
// only if the repository shows one.
func TestNotifications_Sidecar(t *testing.T) {
	t.Parallel() // it waits for slots
	h := newHouse(t)
	h.etcd = shared.Cluster(t, 3)
	at := h.passive()
	proxies := h.through()
	// Every second, but for one gap: so nothing is overdue after two of them.
	h.configure("0-54 * * * * *", "    local-endpoint: "+h.endpoints[at])
	told := h.webhook("start", "success", "failure", "recovery")
	d := h.daemon()
	h.run(d)
	passed := func() {
		t.Helper()
		seen := time.Now()
		h.job(d, "a slot of the other", func(j server.Job) bool {
			return j.State == server.JobSkipped && j.Started.After(seen)
		})
	}
	worker := newHouse(t) // without a member beside it
	worker.etcd, worker.dir = h.etcd, h.dir
	worker.configure("@hourly", "")
	tell := func(want ...string) {
		t.Helper()
		await(t, strings.Join(want, ", "), func() bool { return len(slices.Compact(kinds(told()))) >= len(want) })
		if diff := cmp.Diff(append([]string{}, want...), slices.Compact(kinds(told()))); diff != "" {
			t.Errorf("told (-want +got):\n%s", diff)
		}
	}

	passed() // nothing is stored yet: there is nothing to tell
	tell()
	first := worker.taken()
	tell("backup success")
	h.put("a")
	for _, p := range proxies {
		p.Cut()
	}
	tell("backup success", "backup failure")
	for _, p := range proxies {
		p.Resume()
	}
	passed() // nothing new since
	passed()
	tell("backup success", "backup failure")
	second := worker.taken()
	await(t, "the recovery", func() bool { return slices.Contains(kinds(told()), "backup recovery") })
	checkSidecar(t, d, told(), first, second)
}

// checkSidecar compares the snapshots that a success and a recovery name.
func checkSidecar(t *testing.T, d *daemon.Daemon, told []notify.Event, first, second *backup.Manifest) {
	t.Helper()
	recovery := slices.IndexFunc(told, func(e notify.Event) bool { return e.Kind == notify.Recovered })
	if told[0].Snapshot != string(first.ID) || told[recovery].Snapshot != string(second.ID) {
		t.Errorf("told of %s and %s, want %s and %s", told[0].Snapshot, told[recovery].Snapshot, first.ID, second.ID)
	}
	if c := d.Clusters()[0]; c.Snapshot != string(second.ID) {
		t.Errorf("got %+v", c)
	}
}
