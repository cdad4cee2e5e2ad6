package e2e_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/etcd-backupd/backupd/internal/testserver"
)

// TestGivesWay: a backup has a lower priority than the etcd beside it, in every thread.
func TestGivesWay(t *testing.T) {
	source := testserver.StartCluster(t, testserver.Options{})
	proxy := testserver.StartProxy(t, source.Members[0].Endpoint)
	proxy.Stall()
	for _, args := range [][]string{{"snapshot", "save", "s.db"}, {"backup", "--init"}} {
		c := newCLI(t, "BACKUPD_REPO=file://"+t.TempDir(), "BACKUPD_CLUSTER=prod", "ETCDCTL_ENDPOINTS="+proxy.Addr)
		cmd := exec.Command(binary, args...)
		var out bytes.Buffer
		cmd.Env, cmd.Dir, cmd.Stdout, cmd.Stderr = c.env, c.dir, &out, &out
		asked := proxy.Opened()
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if !testserver.Eventually(t, "a connection", func() bool { return proxy.Opened() > asked }) {
			t.Errorf("%s asks no member", args)
		}
		own, all := niceOf(t, os.Getpid()), niceOf(t, cmd.Process.Pid)
		_ = cmd.Process.Signal(syscall.SIGKILL)
		_ = cmd.Wait() // it was killed
		for thread, nice := range all {
			if want := min(own[fmt.Sprint(os.Getpid())]+10, 19); nice != want {
				t.Errorf("%s: thread %s of %d has the priority %d, want %d", args, thread, len(all), nice, want)
			}
		}
	}
}

// niceOf returns the priority of every thread of a process.
func niceOf(t *testing.T, pid int) map[string]int {
	t.Helper()
	out := map[string]int{}
	stats, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil || len(stats) == 0 {
		t.Fatalf("threads of %d: %v, %v", pid, stats, err)
	}
	for _, path := range stats {
		raw, err := os.ReadFile(path)
		if err != nil {
			continue // the thread has ended
		}
		_, fields, _ := strings.Cut(string(raw), ") ")
		var nice int
		if _, err := fmt.Sscan(strings.Fields(fields)[16], &nice); err != nil {
			t.Fatal(err)
		}
		out[filepath.Base(filepath.Dir(path))] = nice
	}
	return out
}
