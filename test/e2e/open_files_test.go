//go:build long

package e2e_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/etcd-backupd/backupd/internal/testserver"
)

// TestLong_FewOpenFiles: many clusters, all at once if they may, and few open files. While
// their members accept and do not answer, the daemon does; and then it goes on.
func TestLong_FewOpenFiles(t *testing.T) {
	const clusters = 40
	real := testserver.StartCluster(t, testserver.Options{})
	address := strings.TrimPrefix(real.Endpoints()[0], "http://")
	one, other := testserver.StartProxy(t, address), testserver.StartProxy(t, address)
	one.Stall()
	other.Stall()
	dir := t.TempDir()
	w := &week{dir: dir, config: filepath.Join(dir, "backupd.yaml"), server: testserver.FreeURL(t), cli: newCLI(t)}
	text := fmt.Sprintf("repositories:\n  main: {url: \"file://%[1]s/repository\"}\n"+
		"daemon: {server: {listen: \"%[2]s\"}, spool: {folder: %[1]s/spool, min-free: 0B}, concurrency: %[3]d}\nclusters:\n",
		dir, strings.TrimPrefix(w.server, "http://"), clusters)
	for i := range clusters {
		text += fmt.Sprintf("  - {name: c%d, endpoints: [%s, %s], retention: {keep-last: 2}, "+
			"snapshot: {schedule: \"@every 2s\", request-timeout: 500ms, retries: 0}}\n", i, one.URL, other.URL)
	}
	// One whose file is missing is a failure of its own.
	text += fmt.Sprintf("  - {name: unfit, endpoints: [%s], user: root, password-file: %s, "+
		"snapshot: {schedule: \"@yearly\"}}\n", one.URL, w.path("missing"))
	write(t, w.config, text)
	w.cli.run(t, "init", "--repo", "file://"+w.path("repository"))
	w.limited(t, 64)
	count := func(metric, labels string) (n int) {
		for line := range strings.Lines(w.get("/metrics")) {
			if strings.HasPrefix(line, metric+"{") && strings.Contains(line, labels) && !strings.HasSuffix(line, " 0\n") {
				n++
			}
		}
		return n
	}
	waitFor(t, "failures", func() bool { return count("backupd_backups_total", `result="failed"`) >= clusters/2 })
	one.Resume()
	other.Resume()
	waitFor(t, "a snapshot of each cluster", func() bool {
		return count("backupd_last_success_timestamp_seconds", "") == clusters
	})
	if !strings.Contains(w.get("/api/v1/clusters"), w.path("missing")+": stat: no such file") {
		t.Error("nothing tells of the missing file")
	}
	w.stop(t, syscall.SIGTERM)
	log, err := os.ReadFile(w.path("daemon.log"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(log), "too many open files") {
		t.Error("it had no file left to open")
	}
	if len(log) > 150_000 {
		t.Errorf("the log has %d bytes", len(log))
	}
}

// limited starts the daemon with a limit of open files.
func (w *week) limited(t *testing.T, files int) {
	t.Helper()
	if err := os.Mkdir(w.path("spool"), 0o700); err != nil {
		t.Fatal(err)
	}
	log, err := os.Create(w.path("daemon.log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	w.daemon = exec.Command("sh", "-c", fmt.Sprintf(`ulimit -n %d; exec "$0" run --config "$1"`, files), binary, w.config)
	w.daemon.Env, w.daemon.Stdout, w.daemon.Stderr = w.cli.env, log, log
	if err := w.daemon.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if w.daemon != nil {
			_ = w.daemon.Process.Kill()
			_ = w.daemon.Wait()
		}
	})
	waitFor(t, "daemon", func() bool { return w.get("/healthz") != "" })
}
