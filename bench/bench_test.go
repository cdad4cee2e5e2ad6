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
	"syscall"
	"testing"
	"time"

	"github.com/etcd-backupd/backupd/internal/testserver"
)

// world is what both sides work on: one etcd, one S3 server, one scratch folder.
type world struct {
	dir     string
	cluster *testserver.Cluster
	env     []string
	extra   []string // environment of backupd alone
	s3      *testserver.S3
	tools   map[string]string
}

// dataSets are how many containers an object has: see [object].
var dataSets = []struct {
	name       string
	containers int
}{{"Tenth", 4}, {"Third", 0}}

func newWorldOf(b *testing.B, members int) *world { return newWorldWith(b, members, 4) }

// mebibytes is how large the database is.
func mebibytes(b *testing.B) int {
	b.Helper()
	mib := 1024
	if s := os.Getenv("BACKUPD_BENCH_MIB"); s != "" {
		var err error
		if mib, err = strconv.Atoi(s); err != nil {
			b.Fatal(err)
		}
	}
	return mib
}

func newWorldWith(b *testing.B, members, containers int) *world {
	b.Helper()
	w := &world{dir: b.TempDir(), tools: map[string]string{}}
	for _, name := range []string{"etcdctl", "etcdutl"} {
		w.tools[name] = testserver.Binary(b, "3.7", name)
	}
	w.tools["backupd"] = filepath.Join(w.dir, "backupd")
	run(b, nil, "go", "build", "-o", w.tools["backupd"], "../cmd/backupd")
	testserver.Tool(b, "zstd", "zstd")
	testserver.Tool(b, "age", "age")
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
	fill(b, w.cluster.Client(b), mebibytes(b), containers)
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

// script runs the shell pipeline that backupd replaces. It returns how long that took, and the CPU
// time of its processes.
func (w *world) script(b *testing.B, body string) side {
	b.Helper()
	body = strings.NewReplacer("etcdctl ", w.tools["etcdctl"]+" ", "etcdutl ", w.tools["etcdutl"]+" ",
		"CURL", fmt.Sprintf("curl -sS --fail -H x-amz-content-sha256:UNSIGNED-PAYLOAD "+
			"--aws-sigv4 aws:amz:%s:s3 --user %s:%s", w.s3.Region, w.s3.AccessKey, w.s3.SecretKey),
		"URL", w.s3.Endpoint+"/"+w.s3.Bucket).Replace(body)
	syscall.Sync()
	cmd := exec.Command("bash", "-euo", "pipefail", "-c", "cd "+w.dir+"\n"+body)
	cmd.Env = w.env
	start := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("%s: %v\n%s", body, err, out)
	}
	return side{time.Since(start), cpuOf(cmd)}
}

// side is what one side of a comparison took.
type side struct{ wall, cpu time.Duration }

// cpuOf is the CPU time of a command that has ended, and of the processes that it has waited for.
func cpuOf(cmd *exec.Cmd) time.Duration {
	return cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
}

// backupd runs one command and returns what it took, and the most anonymous
// memory that it and its children had at any one moment, in MiB.
func (w *world) backupd(b *testing.B, args ...string) (side, result) {
	b.Helper()
	syscall.Sync()
	cmd := exec.Command(w.tools["backupd"], args...)
	cmd.Dir = w.dir
	cmd.Env = append(w.env, w.extra...)
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
	return side{took, cpuOf(cmd)}, r
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

// comparison collects both sides of several rounds.
type comparison struct {
	ours, theirs, ourCPU, theirCPU, etcdCPU []time.Duration
	peak                                    result
}

func (c *comparison) add(ours, theirs side, r result) {
	c.ours, c.theirs = append(c.ours, ours.wall), append(c.theirs, theirs.wall)
	c.ourCPU, c.theirCPU = append(c.ourCPU, ours.cpu), append(c.theirCPU, theirs.cpu)
	p := &c.peak
	p.own, p.child, p.spool = max(p.own, r.own), max(p.child, r.child), max(p.spool, r.spool)
}

// report prints both sides' medians and their ratios, and how loaded the machine was.
func (c *comparison) report(b *testing.B) {
	b.Helper()
	b.ReportMetric(median(c.ours).Seconds(), "backupd-s")
	b.ReportMetric(median(c.theirs).Seconds(), "script-s")
	b.ReportMetric(median(c.ours).Seconds()/median(c.theirs).Seconds(), "ratio")
	b.ReportMetric(median(c.ourCPU).Seconds(), "backupd-cpu-s")
	b.ReportMetric(median(c.theirCPU).Seconds(), "script-cpu-s")
	b.ReportMetric(median(c.ourCPU).Seconds()/median(c.theirCPU).Seconds(), "cpu-ratio")
	if len(c.etcdCPU) > 0 {
		b.ReportMetric(median(c.etcdCPU).Seconds(), "etcd-cpu-s")
	}
	b.ReportMetric(float64(c.peak.own)/1024, "RssAnon-MiB")
	b.ReportMetric(float64(c.peak.child)/1024, "child-RssAnon-MiB")
	b.ReportMetric(float64(c.peak.spool)/(1<<20), "spool-MiB")
	if raw, err := os.ReadFile("/proc/loadavg"); err == nil {
		load, _ := strconv.ParseFloat(strings.Fields(string(raw))[0], 64)
		b.ReportMetric(load, "load")
	}
	b.ReportMetric(0, "ns/op")
}
