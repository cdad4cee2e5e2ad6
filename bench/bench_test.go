package bench

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/etcd-backupd/backupd/internal/testserver"
)

// world is what both sides work on: one etcd, one S3 server, one scratch folder.
type world struct {
	dir     string
	cluster *testserver.Cluster
	env     []string
	s3      *testserver.S3
	tools   map[string]string
}

func newWorld(b *testing.B) *world { return newWorldOf(b, 1) }

func newWorldOf(b *testing.B, members int) *world {
	b.Helper()
	mib := 1024
	if s := os.Getenv("BACKUPD_BENCH_MIB"); s != "" {
		var err error
		if mib, err = strconv.Atoi(s); err != nil {
			b.Fatal(err)
		}
	}
	w := &world{dir: b.TempDir(), tools: map[string]string{}}
	for _, name := range []string{"etcdctl", "etcdutl"} {
		w.tools[name] = testserver.Binary(b, "3.7", name)
	}
	w.tools["backupd"] = filepath.Join(w.dir, "backupd")
	run(b, nil, "go", "build", "-o", w.tools["backupd"], "../cmd/backupd")
	testserver.Tool(b, "zstd", "zstd")
	testserver.Tool(b, "curl", "curl")
	w.cluster = testserver.StartCluster(b, testserver.Options{Version: "3.7", Size: members,
		Args: []string{"--quota-backend-bytes", strconv.Itoa(16 << 30)}})
	w.s3 = testserver.StartS3(b)
	w.env = append(append(os.Environ(), w.s3.Env()...), "BACKUPD_REPO="+w.s3.URL("bench"), "BACKUPD_CLUSTER=bench",
		"ETCDCTL_ENDPOINTS="+strings.Join(w.cluster.Endpoints(), ","), "BACKUPD_SPOOL="+w.spool(),
		"BACKUPD_SPOOL_MIN_FREE=0B", "TMPDIR="+w.dir)
	if err := os.Mkdir(w.spool(), 0o700); err != nil {
		b.Fatal(err)
	}
	fill(b, w.cluster.Client(b), mib)
	return w
}

// spool is a folder of its own: a restore refuses to write into it.
func (w *world) spool() string { return filepath.Join(w.dir, "spool") }

func run(b *testing.B, env []string, name string, args ...string) string {
	b.Helper()
	cmd := exec.Command(name, args...)
	cmd.Env = env
	out, err := cmd.CombinedOutput()
	if err != nil {
		b.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return string(out)
}

// script runs the shell pipeline that backupd replaces.
func (w *world) script(b *testing.B, body string) time.Duration {
	b.Helper()
	body = strings.NewReplacer("etcdctl ", w.tools["etcdctl"]+" ", "etcdutl ", w.tools["etcdutl"]+" ",
		"CURL", fmt.Sprintf("curl -sS --fail -H x-amz-content-sha256:UNSIGNED-PAYLOAD "+
			"--aws-sigv4 aws:amz:%s:s3 --user %s:%s", w.s3.Region, w.s3.AccessKey, w.s3.SecretKey),
		"URL", w.s3.Endpoint+"/"+w.s3.Bucket).Replace(body)
	start := time.Now()
	run(b, w.env, "bash", "-euc", "cd "+w.dir+"\n"+body)
	return time.Since(start)
}

// backupd runs one command and returns how long it took and the most anonymous
// memory that it and its children had at any one moment, in MiB.
func (w *world) backupd(b *testing.B, args ...string) (time.Duration, result) {
	b.Helper()
	cmd := exec.Command(w.tools["backupd"], args...)
	cmd.Dir = w.dir
	cmd.Env = w.env
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	start := time.Now()
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	ended := make(chan struct{})
	peaks := make(chan result)
	go func() {
		var r result
		tick := time.NewTicker(100 * time.Millisecond) // seldom enough not to be measured itself
		defer tick.Stop()
		for {
			own := rssAnon(cmd.Process.Pid)
			kids := 0
			for _, pid := range children(cmd.Process.Pid) {
				kids += rssAnon(pid)
			}
			r.own, r.child = max(r.own, own), max(r.child, kids)
			r.spool = max(r.spool, spoolBytes(w.spool()))
			select {
			case <-ended:
				peaks <- r
				return
			case <-tick.C:
			}
		}
	}()
	err := cmd.Wait()
	took := time.Since(start)
	close(ended)
	r := <-peaks
	if err != nil {
		b.Fatalf("backupd %s: %v\n%s", strings.Join(args, " "), err, &out)
	}
	return took, r
}

// result is what a run of backupd took besides time; memory in KiB of RssAnon.
type result struct {
	own, child int
	spool      int64
}

func rssAnon(pid int) int {
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	defer f.Close()
	for sc := bufio.NewScanner(f); sc.Scan(); {
		if rest, ok := strings.CutPrefix(sc.Text(), "RssAnon:"); ok {
			n, _ := strconv.Atoi(strings.TrimSpace(strings.TrimSuffix(rest, "kB")))
			return n
		}
	}
	return 0
}

func children(pid int) []int {
	var out []int
	tasks, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, t := range tasks {
		raw, _ := os.ReadFile(t)
		for _, f := range strings.Fields(string(raw)) {
			if n, err := strconv.Atoi(f); err == nil {
				out = append(out, n)
			}
		}
	}
	return out
}

func spoolBytes(dir string) int64 {
	files, _ := filepath.Glob(filepath.Join(dir, "backupd-*.spool"))
	total := int64(0)
	for _, f := range files {
		if st, err := os.Stat(f); err == nil {
			total += st.Size()
		}
	}
	return total
}

func median(d []time.Duration) time.Duration {
	slices.Sort(d)
	return d[len(d)/2]
}

// report prints both sides' medians and their ratio.
func report(b *testing.B, ours, theirs []time.Duration, peak result) {
	b.Helper()
	b.ReportMetric(median(ours).Seconds(), "backupd-s")
	b.ReportMetric(median(theirs).Seconds(), "script-s")
	b.ReportMetric(median(ours).Seconds()/median(theirs).Seconds(), "ratio")
	b.ReportMetric(float64(peak.own)/1024, "RssAnon-MiB")
	b.ReportMetric(float64(peak.child)/1024, "child-RssAnon-MiB")
	b.ReportMetric(float64(peak.spool)/(1<<20), "spool-MiB")
	b.ReportMetric(0, "ns/op")
	b.Logf("backupd %v, script %v", ours, theirs)
}

func (r *result) add(o result) {
	r.own, r.child, r.spool = max(r.own, o.own), max(r.child, o.child), max(r.spool, o.spool)
}

func BenchmarkAll(b *testing.B) {
	w := newWorld(b)
	b.Run("Backup", w.benchBackup)
	b.Run("Restore", w.benchRestore)
}

func (w *world) benchBackup(b *testing.B) {
	var ours, theirs []time.Duration
	var peak result
	w.backupd(b, "init")
	for b.Loop() {
		theirs = append(theirs, w.script(b, `
etcdctl snapshot save s.db
etcdutl snapshot status s.db
zstd -1 -q -f s.db -o s.db.zst
CURL -T s.db.zst URL/script/s.db.zst
rm s.db s.db.zst`))
		d, r := w.backupd(b, "backup")
		ours = append(ours, d)
		peak.add(r)
	}
	report(b, ours, theirs, peak)
}

func (w *world) benchRestore(b *testing.B) {
	flags := "--name default --initial-cluster default=http://127.0.0.1:1 " +
		"--initial-advertise-peer-urls http://127.0.0.1:1"
	var ours, theirs []time.Duration
	var peak result
	for b.Loop() {
		theirs = append(theirs, w.script(b, `
CURL -o r.db.zst URL/script/s.db.zst
zstd -d -q -f r.db.zst -o r.db
etcdutl snapshot restore r.db --data-dir script.etcd `+flags))
		d, r := w.backupd(b, append(strings.Fields("restore latest --bump-revision 0 --data-dir backupd.etcd"),
			strings.Fields(flags)...)...)
		ours = append(ours, d)
		peak.add(r)
		b.StopTimer()
		run(b, nil, "rm", "-rf", filepath.Join(w.dir, "script.etcd"), filepath.Join(w.dir, "backupd.etcd"),
			filepath.Join(w.dir, "r.db"), filepath.Join(w.dir, "r.db.zst"))
		b.StartTimer()
	}
	report(b, ours, theirs, peak)
}
