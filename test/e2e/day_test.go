//go:build long

package e2e_test

import (
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcd-backupd/backupd/internal/testserver"
)

// TestLong_Day is a day in the life of one cluster and its daemon, compressed: everything that an
// operator, a host or a store does to them. Every member is probed all the time, and the longest waits
// are reported beside those of a bare stream. What is certain is asserted: which members were
// asked for what at the same time, that every snapshot is whole in the end, and that none was lost.
func TestLong_Day(t *testing.T) {
	d := newDay(t)
	d.part("a bare stream of each member", true, d.bare)
	d.start(t)
	d.part("backups and verifications", true, func(t *testing.T) {
		d.more(t, 3)
		waitFor(t, "verifications", func() bool {
			return d.value("backupd_verifications_total", `result="ok"`) >= 3
		})
	})
	d.part("compaction and defragmentation", true, d.defragment)
	d.part("a store outage", true, d.outage)
	d.part("a full spool", true, d.fullSpool)
	d.part("the leader moves", false, d.moveLeader)
	d.part("stopped in a stream", true, d.stopInStream)
	d.part("stopped in an upload", true, d.stopInUpload)
	d.part("stopped in a prune", true, d.stopInPrune)
	d.part("a member replaced", false, d.replace)
	d.part("five members", false, d.grow)
	d.part("auth", false, d.auth)
	d.part("one member", false, d.shrink)
	d.stop(t, syscall.SIGTERM)
	t.Logf("\n%s", d.probes.report())
	d.checkCalls(t)
	d.checkSnapshots(t)
}

// day is a daemon, its cluster and its repository.
type day struct {
	*week
	t       *testing.T
	etcd    *testserver.Cluster
	admin   *clientv3.Client
	fronts  map[string]string // URLs in front of the members, by name
	calls   *recorder
	probes  *probes
	store   *storeGate
	options dayOptions
	seen    map[string]bool // snapshots that were stored since the last prune
}

// dayOptions are what changes in the configuration.
type dayOptions struct {
	keepLast, spoolBytes int
	defragment, login    bool
}

func newDay(t *testing.T) *day {
	dir := t.TempDir()
	d := &day{
		week: &week{dir: dir, config: filepath.Join(dir, "backupd.yaml"), server: testserver.FreeURL(t)},
		t:    t, etcd: testserver.StartCluster(t, testserver.Options{Size: 3, Version: "3.6"}),
		fronts: map[string]string{}, calls: &recorder{}, probes: newProbes(t), store: newStoreGate(t),
		options: dayOptions{keepLast: 1000}, seen: map[string]bool{},
	}
	d.admin = d.etcd.Client(t)
	d.etcd.AddUser(t, probeUser, probeUser, "probers")
	testserver.Fill(t, d.admin, testserver.FillOptions{Keys: 4000, ValueBytes: 4000})
	for _, m := range d.etcd.Members {
		d.join(m)
	}
	d.cli = newCLI(t, append(d.store.s3.Env(), "BACKUPD_SERVER="+d.server)...)
	d.configure()
	d.cli.run(t, "init", "--repo", d.store.s3.URL("day"))
	d.watchDaemon(t)
	return d
}

// join makes a member known to the probes and the recorder.
func (d *day) join(m *testserver.Member) {
	d.fronts[m.Name] = d.calls.front(d.t, m)
	d.probes.watch(d.t, m)
}

// leave ends a member that was removed from the cluster.
func (d *day) leave(m *testserver.Member) {
	d.probes.leave(m)
	delete(d.fronts, m.Name)
	m.Kill()
	d.etcd.Members = slices.DeleteFunc(d.etcd.Members, func(o *testserver.Member) bool { return o == m })
}

func (d *day) configure() {
	d.t.Helper()
	var endpoints []string
	for _, m := range d.etcd.Members {
		endpoints = append(endpoints, d.fronts[m.Name])
	}
	more := ""
	if d.options.defragment {
		more += "    defragment: {schedule: \"@every 2s\", threshold: 0.05}\n"
	}
	if d.options.login {
		more += "    user: root\n    password-file: " + d.path("password") + "\n"
	}
	write(d.t, d.config, fmt.Sprintf(`repositories:
  local:
    url: %[1]s
    s3: {endpoint: %[2]q, region: %[3]s}
clusters:
  - name: prod
    endpoints: [%[4]s]
    snapshot: {schedule: "@every 2s", request-timeout: 2s, timeout: 5m}
    verify: {schedule: "@every 3s", max-bytes-per-day: 1GiB}
    retention: {keep-last: %[5]d}
%[6]sdaemon:
  server: {listen: "%[7]s"}
  spool: {folder: %[8]s, min-free: 0B, max-bytes: %[9]d}
  log: {format: json}
`, d.store.s3.URL("day"), d.store.URL, d.store.s3.Region, strings.Join(endpoints, ", "), d.options.keepLast, more,
		strings.TrimPrefix(d.server, "http://"), d.path("spool"), d.options.spoolBytes))
}

// reconfigure changes the configuration of the running daemon.
func (d *day) reconfigure(t *testing.T, change func(*dayOptions)) {
	t.Helper()
	before := d.value("backupd_config_last_reload_success_timestamp_seconds")
	change(&d.options)
	d.configure()
	waitFor(t, "a reload", func() bool {
		return d.value("backupd_config_last_reload_success_timestamp_seconds") > before
	})
}

// part is a part of the day. A calm one does nothing to the cluster, so that each member could answer.
func (d *day) part(name string, calm bool, do func(t *testing.T)) {
	d.t.Helper()
	d.probes.begin(name)
	d.calls.during(calm)
	began := time.Now()
	do(d.t)
	d.calls.during(false)
	d.t.Logf("%s: %v", name, time.Since(began).Round(time.Millisecond))
}

// more waits for so many more verified snapshots.
func (d *day) more(t *testing.T, n int) {
	t.Helper()
	for range n {
		var before string
		waitFor(t, "the daemon to answer", func() bool {
			before = d.cluster(t, "prod").Snapshot
			return d.get("/healthz") != ""
		})
		waitFor(t, "a new snapshot", func() bool {
			now := d.cluster(t, "prod").Snapshot
			if now <= before {
				return false
			}
			d.seen[now] = true
			return true
		})
	}
}

// bare streams a snapshot of each member as etcdctl does.
func (d *day) bare(t *testing.T) {
	for _, m := range d.etcd.Members {
		client, err := clientv3.New(clientv3.Config{Endpoints: []string{m.ClientURL}, DialTimeout: probeLimit})
		if err != nil {
			t.Fatal(err)
		}
		stream, err := client.Snapshot(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, stream); err != nil || n < 10<<20 {
			t.Errorf("%s: %d bytes, %v", m.Name, n, err)
		}
		_ = stream.Close()
		_ = client.Close()
	}
	d.probes.goOn(t, 100)
}

// defragment compacts in the middle of a stream, and lets the daemon defragment.
func (d *day) defragment(t *testing.T) {
	release := d.calls.holdStreams(t)
	d.reconfigure(t, func(o *dayOptions) { o.defragment = true })
	at, err := d.admin.Get(t.Context(), "any")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.admin.Delete(t.Context(), "fill/", clientv3.WithPrefix()); err != nil {
		t.Fatal(err)
	}
	if _, err := d.admin.Compact(t.Context(), at.Header.Revision+1, clientv3.WithCompactPhysical()); err != nil {
		t.Fatal(err)
	}
	d.probes.goOn(t, 300)
	release()
	waitFor(t, "defragmentations", func() bool { return len(d.calls.of("Defragment")) >= 3 })
	d.reconfigure(t, func(o *dayOptions) { o.defragment = false })
	testserver.Fill(t, d.admin, testserver.FillOptions{Keys: 1000, ValueBytes: 4000, Seed: 2})
	d.more(t, 1)
}

func (d *day) outage(t *testing.T) {
	// Between two slots, for a running backup would be tried for minutes first.
	before := d.cluster(t, "prod").Snapshot
	waitFor(t, "the end of a slot", func() bool {
		c := d.cluster(t, "prod")
		return c.Snapshot > before && !c.Running
	})
	d.store.closeTo(true)
	d.store.CloseClientConnections()
	waitFor(t, "a pending snapshot", func() bool { return d.value("backupd_pending_uploads", `cluster="prod"`) >= 1 })
	d.probes.goOn(t, 300)
	d.store.closeTo(false)
	d.more(t, 1)
	waitFor(t, "it to be stored", func() bool { return d.value("backupd_pending_uploads", `cluster="prod"`) == 0 })
}

// fullSpool leaves no room for a database.
func (d *day) fullSpool(t *testing.T) {
	d.reconfigure(t, func(o *dayOptions) { o.spoolBytes = 1 << 20 })
	waitFor(t, "word of it", func() bool { return strings.Contains(d.cluster(t, "prod").Problem, "spool") })
	d.reconfigure(t, func(o *dayOptions) { o.spoolBytes = 0 })
	d.more(t, 1)
}

func (d *day) moveLeader(t *testing.T) {
	for range 3 {
		for _, m := range d.etcd.Members {
			client, err := clientv3.New(clientv3.Config{Endpoints: []string{m.ClientURL}, DialTimeout: probeLimit})
			if err != nil {
				t.Fatal(err)
			}
			s, err := client.Status(t.Context(), m.ClientURL)
			if err != nil {
				t.Fatal(err)
			}
			all, err := client.MemberList(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, other := range all.Members {
				if s.Leader == s.Header.MemberId && other.ID != s.Leader {
					_, err = client.MoveLeader(t.Context(), other.ID)
					break
				}
			}
			if err != nil {
				t.Fatal(err)
			}
			_ = client.Close()
		}
		d.more(t, 1)
	}
}

// suspend stops the daemon while etcd goes on.
func (d *day) suspend(t *testing.T, meanwhile func()) {
	t.Helper()
	for _, sig := range []syscall.Signal{syscall.SIGSTOP, syscall.SIGCONT} {
		if err := d.daemon.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		if sig == syscall.SIGSTOP {
			meanwhile()
			d.probes.goOn(t, 500)
		}
	}
}

func (d *day) stopInStream(t *testing.T) {
	release := d.calls.holdStreams(t)
	d.suspend(t, release)
	d.more(t, 2)
}

func (d *day) stopInUpload(t *testing.T) {
	d.store.holdFirst(t, http.MethodPut, "/prod/data/")
	d.suspend(t, d.store.release)
	d.more(t, 2)
}

func (d *day) stopInPrune(t *testing.T) {
	d.reconfigure(t, func(o *dayOptions) { o.keepLast = 3 })
	d.store.holdFirst(t, http.MethodDelete, "/prod/data/")
	d.suspend(t, d.store.release)
	waitFor(t, "the prune", func() bool { return d.count("prod") <= 4 })
	d.reconfigure(t, func(o *dayOptions) { o.keepLast = 1000 })
	clear(d.seen)
	d.more(t, 1)
	clear(d.seen) // a run that began under the old retention may have removed one
	d.more(t, 1)
}

// remove takes a member out of the cluster.
func (d *day) remove(t *testing.T, m *testserver.Member) {
	t.Helper()
	all, err := d.admin.MemberList(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range all.Members {
		if one.Name != m.Name {
			continue
		}
		// etcd refuses until the members have been connected for some seconds.
		waitFor(t, m.Name+" to be removed", func() bool {
			_, err = d.admin.MemberRemove(t.Context(), one.ID)
			return err == nil || strings.Contains(err.Error(), "not found")
		})
	}
	d.leave(m)
}

func (d *day) replace(t *testing.T) {
	m := d.etcd.Members[2]
	m.Kill()
	d.more(t, 1)
	d.remove(t, m)
	d.join(d.etcd.AddMember(t))
	d.reconfigure(t, func(*dayOptions) {})
	d.more(t, 1)
}

func (d *day) grow(t *testing.T) {
	for range 2 {
		d.join(d.etcd.AddMember(t))
	}
	d.reconfigure(t, func(*dayOptions) {})
	d.more(t, 1)
}

func (d *day) shrink(t *testing.T) {
	for len(d.etcd.Members) > 1 {
		d.remove(t, d.etcd.Members[len(d.etcd.Members)-1])
		if n := len(d.etcd.Members); n == 3 || n == 1 {
			d.reconfigure(t, func(*dayOptions) {})
			d.more(t, 1)
		}
	}
}

func (d *day) auth(t *testing.T) {
	d.etcd.EnableAuth(t, "first")
	waitFor(t, "the daemon to be refused", func() bool { return d.cluster(t, "prod").Problem != "" })
	write(t, d.path("password"), "first\n")
	d.reconfigure(t, func(o *dayOptions) { o.login = true })
	d.more(t, 1)
	d.admin = d.etcd.Client(t)
	if _, err := d.admin.UserChangePassword(t.Context(), "root", "second"); err != nil {
		t.Fatal(err)
	}
	write(t, d.path("password"), "second\n")
	d.more(t, 2)
	d.admin = d.etcd.ClientAs(t, "root", "second")
}
