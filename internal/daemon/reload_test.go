package daemon_test

import (
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/etcd-backupd/backupd/internal/server"
)

// TestDaemon_Reload: everything of an unchanged cluster goes on, its connection
// too.
func TestDaemon_Reload(t *testing.T) {
	h := newHouse(t)
	h.configure("@hourly", "")
	d, before := h.protected()
	same := func(when string) {
		t.Helper()
		after := d.Clusters()[0]
		if after.Schedule != before.Schedule || !after.NextRun.Equal(before.NextRun) ||
			!after.LastAttempt.Equal(before.LastAttempt) ||
			after.Snapshot != before.Snapshot {
			t.Errorf("%s: %+v, before %+v", when, after, before)
		}
	}

	h.configure("@daily", "    nonsense: true")
	d.Reload(t.Context())
	if reloaded(t, d) {
		t.Error("a configuration that is not valid is in use")
	}
	same("after one that is not valid")
	h.configure("@hourly", "")
	h.reload(d)
	same("after one that is the same")
	h.put("a")
	h.backup(d, server.JobSucceeded)
	h.configure("@daily", "")
	h.reload(d)
	if got := d.Clusters()[0]; got.Schedule != "@daily" || got.Snapshot == "" {
		t.Errorf("after the change: %+v", got)
	}
	h.put("a")
	h.backup(d, server.JobSucceeded)
}

// TestReload_Removed: nothing is left of a removed cluster but its running job,
// and a renamed cluster inherits nothing.
func TestReload_Removed(t *testing.T) {
	h, d, upload := busy(t)
	held := h.job(d, "the backup that runs", func(j server.Job) bool { return j.Cluster == "prod" })
	waiting, err := d.StartVerification(inMain("prod"), server.Latest)
	if err != nil {
		t.Fatal(err)
	}
	second := d.Clusters()[1]

	h.edit("name: prod", "name: renamed")
	h.reload(d)
	if got := d.Clusters(); len(got) != 2 || got[0].Name != "renamed" || got[1].Snapshot != second.Snapshot ||
		got[1].Name != "second" ||
		!got[1].NextRun.Equal(second.NextRun) || !got[1].LastAttempt.Equal(second.LastAttempt) {
		t.Errorf("got %+v", got)
	}
	if got := h.ended(d, waiting.ID); got.State != server.JobFailed || got.Error == "" {
		t.Errorf("a job that will not come: %+v", got)
	}
	if _, err := d.StartBackup(inMain("prod")); !errors.Is(err, server.ErrNotFound) {
		t.Errorf("a cluster that was taken out is backed up: %v", err)
	}
	upload.release()
	got := h.ended(d, held.ID)
	if got.State != server.JobSucceeded {
		t.Errorf("a running job did not finish: %+v", got)
	}
	await(t, "the cluster under its new name", func() bool { return d.Clusters()[0].Snapshot != "" })
	if c := d.Clusters()[0]; c.Snapshot == got.Snapshot {
		t.Errorf("a snapshot of the old name was taken over: %+v", c)
	}
	await(t, "the metrics to go", func() bool { return len(series(t, d, `"prod"`)) == 0 })
	if len(series(t, d, `"renamed"`)) == 0 || len(series(t, d, `"second"`)) == 0 {
		t.Error("metrics are missing")
	}
}

// TestReload_Known: the knowledge of a cluster is not taken over under another
// name, even while nothing runs.
func TestReload_Known(t *testing.T) {
	h := newHouse(t)
	d, _ := h.protected()
	h.edit("name: prod", "name: renamed")
	h.edit(h.etcd.Endpoints()[0], "http://127.0.0.1:1") // so that it gets no snapshot of its own
	h.reload(d)
	if c := d.Clusters()[0]; c.Name != "renamed" || c.Snapshot != "" || !c.LastSuccess.IsZero() {
		t.Errorf("got %+v", c)
	}
}

// TestReload_Running: a job that runs during a reload is not lost. A job that
// waits for its turn is not done in vain, nor for another cluster.
func TestReload_Running(t *testing.T) {
	h, d, upload := busy(t)
	h.edit("concurrency: 3", "concurrency: 1")
	h.edit("@yearly", "@daily")
	h.reload(d)
	held := h.job(d, "the backup that runs", func(j server.Job) bool { return j.Cluster == "prod" })
	if c := d.Clusters()[0]; c.Schedule != "@daily" || !c.Running || c.Snapshot != "" {
		t.Errorf("while it runs: %+v", c)
	}
	waiting, err := d.StartBackup(inMain("second"))
	if err != nil {
		t.Fatal(err)
	}
	h.edit(`snapshot: {schedule: "@hourly"}`, `snapshot: {schedule: "@weekly"}`)
	h.reload(d)
	if c := d.Clusters()[1]; c.Schedule != "@weekly" || c.Snapshot == "" {
		t.Errorf("while it waits: %+v", c)
	}
	before := d.Clusters()[1].Snapshot
	upload.release()
	got := h.ended(d, held.ID)
	if c := d.Clusters()[0]; got.State != server.JobSucceeded || c.Snapshot != got.Snapshot ||
		c.State != server.ClusterOK {
		t.Errorf("a snapshot that was begun under the old configuration: %+v, %+v", got, c)
	}
	if got := h.ended(d, waiting.ID); got.State != server.JobSucceeded || got.Snapshot == before {
		t.Errorf("a backup that waited: %+v", got)
	}
}

// TestReload_Waiting: a backup that waits for its turn fails if its cluster is
// removed, and nothing else happens.
func TestReload_Waiting(t *testing.T) {
	h, d, upload := busy(t)
	told := h.webhook("start", "success", "failure", "recovery")
	h.edit("concurrency: 3", "concurrency: 1")
	h.reload(d)
	waiting, err := d.StartBackup(inMain("second"))
	if err != nil {
		t.Fatal(err)
	}
	h.edit("name: second", "name: third")
	h.reload(d)
	if got := h.ended(d, waiting.ID); got.State != server.JobFailed || got.Snapshot != "" {
		t.Errorf("the backup of a cluster that was taken out: %+v", got)
	}
	upload.release()
	await(t, "the new cluster", func() bool { return d.Clusters()[1].Snapshot != "" })
	await(t, "word of both", func() bool { return len(told()) >= 3 })
	for _, e := range told() {
		if e.Cluster == "second" {
			t.Errorf("told of %+v", e)
		}
	}
}

// TestReload_Patience: a reload does not make old snapshots younger, and a new
// schedule gets time to begin.
func TestReload_Patience(t *testing.T) {
	h := newHouse(t)
	g := h.gated()
	h.configure("@hourly", "")
	d, _ := h.protected()
	upload := g.hold("PUT", "prod/data/")
	h.put("a")
	h.ask(d) // and it hangs, so that no slot can make up for another
	upload.reached()
	state := func(after time.Duration) string {
		h.clock.put(after)
		return d.Clusters()[0].State
	}
	h.configure("@hourly", "    labels: {a: b}")
	h.reload(d)
	if state(time.Hour) != server.ClusterOK || state(3*time.Hour) != server.ClusterFailure {
		t.Errorf("after a change that is not of the schedule: %s, %s", state(time.Hour), state(3*time.Hour))
	}
	const day = 24 * time.Hour
	if state(day) != server.ClusterFailure {
		t.Errorf("a day without a backup: %s", state(day))
	}
	h.configure("@every 2h", "")
	h.reload(d)
	for after, want := range map[time.Duration]string{day: server.ClusterOK, day + time.Hour: server.ClusterOK,
		day + 5*time.Hour: server.ClusterFailure} {
		if got := state(after); got != want {
			t.Errorf("%v after a change of the schedule: %s, want %s", after, got, want)
		}
	}
	h.clock.put(0)
}

// TestReload_Together: a signal and a changed file arrive at once, again and
// again, while backups run.
func TestReload_Together(t *testing.T) {
	h := newHouse(t)
	d, _ := h.protected()
	var both sync.WaitGroup
	for _, schedule := range []string{"@hourly", "@daily", "@weekly", "@monthly"} {
		h.configure(schedule, "")
		text, err := os.ReadFile(h.path)
		if err != nil {
			t.Fatal(err)
		}
		both.Go(func() {
			for range 60 {
				err := os.WriteFile(h.path+schedule, text, 0o600)
				if err = errors.Join(err, os.Rename(h.path+schedule, h.path)); err != nil {
					t.Error(err)
				}
				d.Reload(t.Context())
				if c := d.Clusters(); len(c) != 1 || c[0].Name != "prod" || c[0].Snapshot == "" {
					t.Errorf("got %+v", c)
				}
			}
		})
	}
	over := make(chan struct{})
	go func() { both.Wait(); close(over) }()
	backups := 0
	for more := true; more; {
		backups++
		h.backup(d, server.JobSucceeded)
		select {
		case <-over:
			more = false
		default:
		}
	}
	if h.reload(d); backups < 3 {
		t.Errorf("%d backups", backups)
	}
	h.put("a")
	h.backup(d, server.JobSucceeded)
}

// TestReload_Server: addresses and callers change with a reload, and what cannot be used
// changes nothing.
func TestReload_Server(t *testing.T) {
	h := newHouse(t)
	d, _ := h.protected()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := free.Addr().String()
	free.Close()
	tokens := filepath.Join(h.dir, "tokens")
	h.must(os.WriteFile(tokens, []byte("token-of-the-tests-01"), 0o600))
	status := func() int {
		resp, err := http.Get("http://" + address + "/api/v1/clusters")
		if err != nil {
			return 0
		}
		resp.Body.Close()
		return resp.StatusCode
	}
	listens := func(more string) {
		h.configure("@yearly", "")
		h.edit(`{listen: "off"}`, "{listen: "+more+"}")
	}
	if got := status(); got != 0 {
		t.Errorf("it listens before: %d", got)
	}
	listens(`"` + address + `"`)
	h.reload(d)
	if got := status(); got != http.StatusOK {
		t.Errorf("after a reload: %d", got)
	}
	listens(`"` + address + `", read-tokens-file: ` + tokens)
	h.reload(d)
	if got := status(); got != http.StatusUnauthorized {
		t.Errorf("with tokens: %d", got)
	}
	listens(`"` + taken.Addr().String() + `"`)
	if d.Reload(t.Context()); reloaded(t, d) || status() != http.StatusUnauthorized {
		t.Errorf("an address in use: reloaded %v, status %d", reloaded(t, d), status())
	}
}

// TestReload_Refused: nothing is left of a configuration that is refused.
func TestReload_Refused(t *testing.T) {
	h := newHouse(t)
	d, _ := h.protected()
	for name, edit := range map[string]func(){
		"a file is missing": func() {
			h.edit("/spool}", "/spool}\n  notifications: [{webhook: {url-file: "+h.dir+"/none}}]")
		},
		"a file that only a restart would read": func() {
			h.edit(`{listen: "off"}`, `{listen: "off", read-tokens-file: `+h.dir+"/none}")
		},
		"no such program": func() {
			h.edit("/spool}", "/spool}\n  notifications: [{command: {program: /no/such/program}}]")
		},
	} {
		t.Run(name, func(t *testing.T) {
			h.configure("@hourly", h.other("second"))
			edit()
			d.Reload(t.Context())
			if c := d.Clusters(); reloaded(t, d) || len(c) != 1 || c[0].Schedule != "@yearly" {
				t.Errorf("it is in use: %+v", c)
			}
			h.backup(d, server.JobSucceeded)
			if left := series(t, d, `"second"`); len(left) != 0 {
				t.Errorf("metrics of what is not in use:\n%s", strings.Join(left, "\n"))
			}
		})
	}
}

// TestReload_LeftBehind: a pending snapshot of a cluster that is no longer
// protected is logged, and metrics name only the repositories in use.
func TestReload_LeftBehind(t *testing.T) {
	h := newHouse(t)
	d, _ := h.protected()
	h.away()
	h.put("a")
	h.backup(d, server.JobFailed)
	h.back()
	h.edit("name: prod", "name: renamed")
	h.edit("main:", "moved:")
	h.reload(d)
	if got := series(t, d, `"prod"`); len(got) != 1 || !strings.HasPrefix(got[0], "backupd_pending_uploads") {
		t.Errorf("got %v", got)
	}
	if got := series(t, d, `"main"`); len(got) != 0 {
		t.Errorf("metrics of a repository that is used no more: %v", got)
	}
	if got := series(t, d, "backupd_pending_uploads{"); len(got) != 2 {
		t.Errorf("got %v", got)
	}
}

// TestReload_Retention: a run prunes by the policy that is in force when it ends, not by
// that of its beginning, and not at all if the cluster is no longer there.
func TestReload_Retention(t *testing.T) {
	for name, c := range map[string]struct {
		before, after string
		left          int // of seven; the policy before the reload leaves four
	}{
		"Mended":    {"keep-last: 4", "keep-last: 100", 7},
		"Changed":   {"keep-last: 4", "keep-last: 5", 5},
		"TakenOut":  {"name: prod", "name: other", 7},
		"Elsewhere": {"repository: main", "repository: second", 7},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			g := h.gated()
			h.configure("@yearly", "    repository: main")
			h.edit("clusters:", "  second: {url: \"file://"+h.dir+"/second\"}\nclusters:")
			h.edit("keep-last: 3", "keep-last: 100")
			d, _ := h.protected()
			for range 5 {
				h.put("a")
				h.backup(d, server.JobSucceeded)
			}
			h.edit("keep-last: 100", "keep-last: 4")
			h.reload(d)
			upload := g.hold("PUT", "prod/data/")
			h.put("a")
			j := h.ask(d)
			upload.reached()
			h.edit(c.before, c.after)
			h.reload(d)
			upload.release()
			if got := h.ended(d, j.ID); got.State != server.JobSucceeded {
				t.Errorf("got %+v", got)
			}
			left, err := filepath.Glob(filepath.Join(g.s3.Dir(), "x", "prod", "snapshots", "*"))
			if err != nil || len(left) != c.left {
				t.Errorf("%d snapshots are left, want %d: %v", len(left), c.left, err)
			}
		})
	}
}
