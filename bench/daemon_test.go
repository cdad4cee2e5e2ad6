package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/repository/choice"
	"github.com/etcd-backupd/backupd/internal/storage/file"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

const (
	daemonClusters  = 50
	daemonSnapshots = 10_000 // in the repository, of all clusters together
)

// BenchmarkDaemon measures a daemon that guards many clusters in a repository
// with many snapshots: memory, start-up, and a listing of everything.
func BenchmarkDaemon(b *testing.B) {
	d := newDaemonWorld(b)
	b.Run("List", d.benchList)
	b.Run("Run", d.benchRun)
}

type daemonWorld struct {
	dir    string
	bin    string
	env    []string
	url    string
	config string
	server string
}

func newDaemonWorld(b *testing.B) *daemonWorld {
	b.Helper()
	d := &daemonWorld{dir: b.TempDir(), server: testserver.FreeURL(b)}
	d.bin, d.config = filepath.Join(d.dir, "backupd"), filepath.Join(d.dir, "backupd.yaml")
	run(b, nil, "go", "build", "-o", d.bin, "../cmd/backupd")
	server := testserver.StartS3(b)
	d.url = server.URL("daemon")
	d.env = append(append(os.Environ(), server.Env()...), "TMPDIR="+d.dir)

	clusters := make([]*testserver.Cluster, daemonClusters)
	for i := range clusters {
		clusters[i] = testserver.StartCluster(b,
			testserver.Options{Version: "3.7", Args: []string{"--heartbeat-interval=500", "--election-timeout=5000"}})
	}
	var conf strings.Builder
	fmt.Fprintf(&conf, "repositories:\n  main:\n    url: %s\n    create-if-missing: true\n"+
		"    s3: {endpoint: %q, region: %s}\nclusters:\n", d.url, server.Endpoint, server.Region)
	for i, c := range clusters {
		fmt.Fprintf(&conf,
			"  - name: cluster-%d\n    endpoints: [%s]\n"+
				"    snapshot: {schedule: \"@every 20s\", jitter: 15s, max-age: 0s}\n"+
				"    retention: {keep-last: 100000}\n", i, c.Endpoints()[0])
	}
	fmt.Fprintf(&conf, "daemon:\n  server: {listen: %q}\n  log: {level: warn}\n",
		strings.TrimPrefix(d.server, "http://"))
	if err := os.WriteFile(d.config, []byte(conf.String()), 0o600); err != nil {
		b.Fatal(err)
	}
	// Real snapshots first, of which copies under other names make the rest.
	run(b, d.env, d.bin, "backup", "--config", d.config)
	d.multiply(b, server)
	return d
}

// multiply fills the repository with copies of the first snapshots, which differ
// in time and revision. The files behind the objects are written: a hundredth
// of the time.
func (d *daemonWorld) multiply(b *testing.B, server *testserver.S3) {
	b.Helper()
	_, prefix, _ := strings.Cut(strings.TrimPrefix(d.url, "s3://"), "/")
	repo := file.New(filepath.Join(server.Dir(), prefix))
	begin := time.Now().Add(-365 * 24 * time.Hour)
	for c := range daemonClusters {
		name := fmt.Sprintf("cluster-%d", c)
		in := repository.At(repo, "").Cluster(name)
		item, err := choice.FindIn(b.Context(), in, choice.Latest)
		if err != nil {
			b.Fatal(err)
		}
		m, err := in.Manifest(b.Context(), item)
		if err != nil {
			b.Fatal(err)
		}
		data, err := os.ReadFile(filepath.Join(server.Dir(), prefix, m.DataKey()))
		if err != nil {
			b.Fatal(err)
		}
		for i := range daemonSnapshots / daemonClusters {
			copied := *m
			copied.StartedAt = begin.Add(time.Duration(i) * 36 * time.Hour / 2)
			copied.Revision = backup.Revision(i + 1)
			copied.ID = backup.NewDataName(copied.StartedAt).WithRevision(copied.Revision)
			raw, err := copied.Marshal()
			if err != nil {
				b.Fatal(err)
			}
			for key, content := range map[string][]byte{copied.DataKey(): data, copied.Key(): raw} {
				if err := os.WriteFile(filepath.Join(server.Dir(), prefix, key), content, 0o644); err != nil {
					b.Fatal(err)
				}
			}
		}
	}
}

func (d *daemonWorld) benchList(b *testing.B) {
	var took []time.Duration
	var peak int
	for b.Loop() {
		cmd := exec.Command(d.bin, "list", "--repo", d.url)
		cmd.Env, cmd.Stdout, cmd.Stderr = d.env, io.Discard, os.Stderr
		start := time.Now()
		if err := cmd.Start(); err != nil {
			b.Fatal(err)
		}
		ended := make(chan struct{})
		peaked := make(chan int)
		go func() { peaked <- watchMemory(cmd.Process.Pid, ended) }()
		err := cmd.Wait()
		took = append(took, time.Since(start))
		close(ended)
		peak = max(peak, <-peaked)
		if err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(median(took).Seconds(), "list-s")
	b.ReportMetric(float64(peak)/1024, "RssAnon-MiB")
	b.ReportMetric(0, "ns/op")
}

// watchMemory returns the most anonymous memory of a process, in KiB.
func watchMemory(pid int, ended <-chan struct{}) int {
	peak := 0
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ended:
			return peak
		case <-tick.C:
			peak = max(peak, rssAnon(pid))
		}
	}
}

// benchRun starts the daemon and lets it work for a while.
func (d *daemonWorld) benchRun(b *testing.B) {
	for b.Loop() {
		cmd := exec.Command(d.bin, "run", "--config", d.config)
		cmd.Env, cmd.Stderr = d.env, os.Stderr
		start := time.Now()
		if err := cmd.Start(); err != nil {
			b.Fatal(err)
		}
		ended := make(chan struct{})
		peaked := make(chan int)
		go func() { peaked <- watchMemory(cmd.Process.Pid, ended) }()
		tick := time.NewTicker(10 * time.Millisecond)
		for !d.up("/healthz") {
			<-tick.C
		}
		up := time.Since(start)
		tick.Reset(50 * time.Millisecond)
		for d.unknown() {
			<-tick.C
		}
		tick.Stop()
		known := time.Since(start)
		<-time.After(60 * time.Second) // three rounds of the schedule
		if err := cmd.Process.Signal(os.Interrupt); err != nil {
			b.Fatal(err)
		}
		_ = cmd.Wait() // it was interrupted
		close(ended)
		b.ReportMetric(float64(<-peaked)/1024, "RssAnon-MiB")
		b.ReportMetric(up.Seconds(), "up-s")
		b.ReportMetric(known.Seconds(), "all-known-s")
		b.ReportMetric(0, "ns/op")
	}
}

// unknown tells whether of some cluster the daemon does not know the newest
// snapshot yet.
func (d *daemonWorld) unknown() bool {
	resp, err := http.Get(d.server + "/api/v1/clusters")
	if err != nil {
		return true
	}
	defer resp.Body.Close()
	var list struct{ Clusters []struct{ Snapshot string } }
	if json.NewDecoder(resp.Body).Decode(&list) != nil || len(list.Clusters) != daemonClusters {
		return true
	}
	for _, c := range list.Clusters {
		if c.Snapshot == "" {
			return true
		}
	}
	return false
}

func (d *daemonWorld) up(path string) bool {
	resp, err := http.Get(d.server + path)
	if err != nil {
		return false
	}
	_ = resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}
