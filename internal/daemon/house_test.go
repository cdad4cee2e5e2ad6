package daemon_test

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/config"
	"github.com/etcd-backupd/backupd/internal/daemon"
	"github.com/etcd-backupd/backupd/internal/duty"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/server"
	"github.com/etcd-backupd/backupd/internal/spool"
	"github.com/etcd-backupd/backupd/internal/storage"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// often is the time between two looks in tests that change the repository.
const often = 20 * time.Millisecond

// house is a configuration with one cluster, the daemons that use it, and their
// clock.
type house struct {
	t         *testing.T
	dir       string
	path      string
	etcd      *testserver.Cluster
	endpoints []string // if not those of etcd
	repo      string   // if not a folder of its own: a repository's mapping in YAML
	looks     time.Duration
	clock     clock
	log       slog.Handler
	client    *clientv3.Client
}

// newHouse returns a house with the shared etcd and without a slot in sight.
func newHouse(t *testing.T) *house {
	t.Helper()
	dir := t.TempDir()
	h := &house{t: t, dir: dir, path: filepath.Join(dir, "backupd.yaml"), etcd: shared.Cluster(t, 1),
		log: slog.NewTextHandler(t.Output(), nil)}
	if err := os.Mkdir(filepath.Join(dir, "spool"), 0o700); err != nil {
		t.Fatal(err)
	}
	h.must(os.Mkdir(h.folder(), 0o700))
	h.configure("@yearly", "")
	h.init("main")
	return h
}

// configure writes the configuration. Lines of more belong to the cluster, or
// are other clusters.
func (h *house) configure(schedule, more string) {
	h.t.Helper()
	endpoints := h.endpoints
	if endpoints == nil {
		endpoints = h.etcd.Endpoints()
	}
	text := fmt.Sprintf(`repositories:
  main: %[1]s
clusters:
  - name: prod
    endpoints: [%[2]s]
    snapshot: {schedule: "%[3]s", retries: 0, request-timeout: 2s}
    retention: {keep-last: 3, min-verified: 1}
%[4]s
daemon:
  server: {listen: "off"}
  spool: {min-free: 0B, folder: %[5]s/spool}
`, cmp.Or(h.repo, `{url: "file://`+h.dir+`/repository"}`), strings.Join(endpoints, ", "), schedule, more, h.dir)
	if err := os.WriteFile(h.path, []byte(text), 0o600); err != nil {
		h.t.Fatal(err)
	}
}

// other is another cluster of the configuration, with the same etcd.
func (h *house) other(name string) string {
	return fmt.Sprintf("  - name: %s\n    endpoints: [%s]\n    snapshot: {schedule: \"@hourly\"}\n", name,
		h.etcd.Endpoints()[0])
}

// edit replaces a part of the configuration.
func (h *house) edit(before, after string) {
	h.t.Helper()
	raw, err := os.ReadFile(h.path)
	if err != nil {
		h.t.Fatal(err)
	}
	if strings.Count(string(raw), before) != 1 {
		h.t.Fatalf("%q is not once in the configuration:\n%s", before, raw)
	}
	if err := os.WriteFile(h.path, []byte(strings.Replace(string(raw), before, after, 1)), 0o600); err != nil {
		h.t.Fatal(err)
	}
}

// through puts a proxy in front of each member.
func (h *house) through() []*testserver.Proxy {
	h.t.Helper()
	var out []*testserver.Proxy
	h.endpoints = nil
	for _, ep := range h.etcd.Endpoints() {
		p := testserver.StartProxy(h.t, strings.TrimPrefix(ep, "http://"))
		out, h.endpoints = append(out, p), append(h.endpoints, p.URL)
	}
	return out
}

func (h *house) load() *config.Config {
	h.t.Helper()
	c, err := config.Load(h.path)
	if err != nil {
		h.t.Fatal(err)
	}
	return c
}

func (h *house) daemon() *daemon.Daemon {
	h.t.Helper()
	d, err := daemon.New(h.t.Context(), h.options())
	if err != nil {
		h.t.Fatal(err)
	}
	return d
}

func (h *house) options() daemon.Options {
	h.t.Helper()
	return daemon.Options{
		Config: h.load(), Path: h.path, Version: daemon.Version{Tool: "backupd test", Version: "test", Revision: "abc",
			Go: "go"},
		Log: slog.New(h.log), Hint: func(error) string { return "do something" }, Now: h.clock.now,
		LookEvery: h.looks, CatchUpWithin: time.Millisecond,
	}
}

// run runs the daemon until the test is over or stop is called.
func (h *house) run(d *daemon.Daemon) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- d.Run(ctx) }()
	stop = func() {
		cancel()
		if err := <-done; err != nil {
			h.t.Errorf("run: %v", err)
		}
		done <- nil
	}
	h.t.Cleanup(stop)
	return stop
}

// protected runs a daemon whose cluster has its first snapshot, which it returns.
func (h *house) protected() (*daemon.Daemon, server.Cluster) {
	h.t.Helper()
	d := h.daemon()
	h.run(d)
	return d, h.ok(d)
}

// ok waits until all is well with the cluster.
func (h *house) ok(d *daemon.Daemon) (c server.Cluster) {
	h.t.Helper()
	await(h.t, "the cluster to be protected", func() bool {
		c = d.Clusters()[0]
		return c.State == server.ClusterOK && !c.Running
	})
	return c
}

// troubled waits until the cluster is in such a state, for such a reason.
func (h *house) troubled(d *daemon.Daemon, state, problem string) (c server.Cluster) {
	h.t.Helper()
	await(h.t, state+": "+problem, func() bool {
		c = d.Clusters()[0]
		return c.State == state && strings.Contains(c.Problem, problem)
	})
	return c
}

// once runs one slot in a process of its own, which ends after it.
func (h *house) once() (*daemon.Daemon, duty.Outcome) {
	h.t.Helper()
	d := h.daemon()
	got, err := d.Once(h.t.Context(), []string{"prod"})
	if err != nil || len(got) != 1 {
		h.t.Fatalf("got %d outcomes, %v", len(got), err)
	}
	return d, got[0].Outcome // without its key, whose String would be all that %+v prints
}

// taken is once, and the slot must take a snapshot.
func (h *house) taken() *backup.Manifest {
	h.t.Helper()
	_, out := h.once()
	if out.Err != nil || out.Manifest == nil {
		h.t.Fatalf("got %+v", out)
	}
	return out.Manifest
}

// ask starts a backup by hand, as soon as that can be done.
func (h *house) ask(d *daemon.Daemon) (j server.Job) {
	h.t.Helper()
	await(h.t, "the job before to end", func() (ok bool) {
		var err error
		j, err = d.StartBackup(inMain("prod"))
		return err == nil
	})
	return j
}

// backup runs a backup by hand, which must end in such a state.
func (h *house) backup(d *daemon.Daemon, want string) server.Job {
	h.t.Helper()
	got := h.ended(d, h.ask(d).ID)
	if got.State != want {
		h.t.Fatalf("got %+v", got)
	}
	return got
}

// verify verifies a snapshot by hand, and returns the job when it has ended.
func (h *house) verify(d *daemon.Daemon, id string) server.Job {
	h.t.Helper()
	var j server.Job
	await(h.t, "the verification before to end", func() (ok bool) {
		var err error
		j, err = d.StartVerification(inMain("prod"), id)
		return err == nil
	})
	return h.ended(d, j.ID)
}

// ended waits for a job and returns how it ended.
func (h *house) ended(d *daemon.Daemon, id string) server.Job {
	h.t.Helper()
	return h.job(d, "job "+id+" to end", func(j server.Job) bool { return j.ID == id && j.State != server.JobRunning })
}

// job waits for the newest job of such a kind.
func (h *house) job(d *daemon.Daemon, which string, ok func(server.Job) bool) (got server.Job) {
	h.t.Helper()
	await(h.t, which, func() bool {
		for _, got = range d.Jobs() {
			if ok(got) {
				return true
			}
		}
		return false
	})
	return got
}

// reload makes the daemon use the configuration as it is now.
func (h *house) reload(d *daemon.Daemon) {
	h.t.Helper()
	d.Reload(h.t.Context())
	if !reloaded(h.t, d) {
		h.t.Fatal("not reloaded")
	}
}

func (h *house) put(key string) {
	h.t.Helper()
	if h.client == nil {
		h.client = h.etcd.Client(h.t)
	}
	if _, err := h.client.Put(h.t.Context(), key, "value"); err != nil {
		h.t.Fatal(err)
	}
}

// streams counts how often etcd was asked for its database.
func (h *house) streams() int {
	return strings.Count(h.etcd.Members[0].Log(), `"sending database snapshot to client"`)
}

func (h *house) pending() []spool.Pending {
	h.t.Helper()
	folder := spool.Folder{Dir: filepath.Join(h.dir, "spool")}
	out, err := folder.Waiting()
	if err != nil {
		h.t.Fatal(err)
	}
	return out
}

// received waits until a database was received as a whole and is pending.
func (h *house) received() {
	h.t.Helper()
	await(h.t, "a database to be received", func() bool {
		found, _ := filepath.Glob(filepath.Join(h.dir, "spool", "*.pending.json"))
		return len(found) > 0
	})
}

// init makes a repository of the configuration, unless it is there.
func (h *house) init(repo string) {
	h.t.Helper()
	_, err := repository.Create(h.t.Context(), h.store(repo))
	h.must(err)
}

// store is the repository, as another program sees it.
func (h *house) store(repository string) storage.Store {
	h.t.Helper()
	repo := h.load().Repositories[repository]
	s, err := repo.Open(h.t.Context(), slog.New(slog.DiscardHandler))
	if err != nil {
		h.t.Fatal(err)
	}
	return s
}

// inMain is the key of a cluster in the repository of a house.
func inMain(cluster string) server.Key { return server.Key{Repository: "main", Cluster: cluster} }

// stored lists the snapshots of a cluster in a store.
func stored(s storage.Store, cluster string) *repository.Cluster {
	return repository.At(s, "").Cluster(cluster)
}

// clock is a wall clock that can be set forward and back, and stopped.
type clock struct {
	mu      sync.Mutex
	shift   time.Duration
	stopped time.Time // zero: it goes
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.stopped.IsZero() {
		return c.stopped
	}
	return time.Now().Round(0).Add(c.shift)
}

// put sets the difference of the clock from the real one.
func (c *clock) put(by time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.shift, c.stopped = by, time.Time{}
}

// stop stops the clock until it is set again.
func (c *clock) stop(now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopped = now
}
