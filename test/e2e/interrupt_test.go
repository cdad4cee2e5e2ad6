package e2e_test

import (
	"bytes"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/etcd-backupd/backupd/internal/testserver"
)

// interrupted starts backupd, waits until reached says that it hangs in the
// middle, sends it the signals, and returns its exit code.
func (c *cli) interrupted(t *testing.T, reached func() bool, signals []syscall.Signal, args ...string) int {
	t.Helper()
	return c.signalled(t, reached, signals, exec.Command(binary, args...))
}

func (c *cli) signalled(t *testing.T, reached func() bool, signals []syscall.Signal, cmd *exec.Cmd) int {
	t.Helper()
	cmd.Env, cmd.Dir = c.env, c.dir
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	inMiddle := testserver.Eventually(t, "the middle, or the end", func() bool { return reached() || len(done) > 0 })
	if !inMiddle || len(done) > 0 {
		_ = cmd.Process.Kill()
		t.Fatalf("never got to the middle:\n%s", &out)
	}
	for _, s := range signals {
		if err := cmd.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case <-done:
	case <-time.After(45 * time.Second):
		_ = cmd.Process.Kill()
		t.Fatalf("still running after the interrupt:\n%s", &out)
	}
	t.Logf("it said:\n%s", &out) // after the process: nothing is written any more
	return cmd.ProcessState.ExitCode()
}

// files lists what is below a folder, names only.
func files(t *testing.T, dir string) []string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			out = append(out, strings.TrimPrefix(path, dir+"/"))
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestInterruptLeavesNothing(t *testing.T) {
	// Where the tests run by nohup, children would ignore the signal, as they should.
	heard := make(chan os.Signal, 1)
	signal.Notify(heard, syscall.SIGHUP)
	defer signal.Stop(heard)
	source := testserver.StartCluster(t, testserver.Options{Version: "3.7"})
	testserver.Fill(t, source.Client(t), testserver.FillOptions{Keys: 3000, ValueBytes: 4 << 10, Seed: 9})
	s3 := testserver.StartS3(t)

	// The stream from etcd stops after a megabyte.
	slow := testserver.StartProxy(t, source.Members[0].Endpoint)
	slow.StallAfter(testserver.ToClient, 1<<20)
	c := newCLI(t, append(s3.Env(), "BACKUPD_REPO="+s3.URL("r"), "BACKUPD_CLUSTER=prod",
		"ETCDCTL_ENDPOINTS="+slow.Addr)...)
	spooled := func() bool {
		found, _ := filepath.Glob(filepath.Join(c.dir, "backupd-*.spool"))
		for _, f := range found {
			if st, err := os.Stat(f); err == nil && st.Size() > 100<<10 {
				return true
			}
		}
		return false
	}
	c.run(t, "init")
	// The end of the connection to the terminal is no way to leave litter, either.
	if code := c.interrupted(t, spooled, []syscall.Signal{syscall.SIGHUP}, "backup"); code != 129 {
		t.Errorf("exit code %d, want 129", code)
	}
	slow.Resume()
	slow.StallAfter(testserver.ToClient, 1<<20)
	// Who starts it by nohup wants it to go on.
	nohup := exec.Command("sh", "-c", `trap "" HUP; exec "$0" backup`, binary)
	if code := c.signalled(t, spooled, []syscall.Signal{syscall.SIGHUP, syscall.SIGINT}, nohup); code != 130 {
		t.Errorf("exit code %d, want 130", code)
	}
	if left := files(t, c.dir); len(left) > 0 {
		t.Errorf("the spool folder holds %q", left)
	}
	all := &cli{dir: c.dir, env: slices.DeleteFunc(slices.Clone(c.env),
		func(v string) bool { return strings.HasPrefix(v, "BACKUPD_CLUSTER=") })}
	if out := all.run(t, "list", "-w", "json"); !strings.Contains(out, `"snapshots":[]`) {
		t.Errorf("a snapshot is listed: %s", out)
	}
	if out, stderr, _ := c.try("verify", "--all", "-w", "json"); !strings.Contains(out, `"snapshots":[]`) ||
		!strings.Contains(stderr, "there was no backup yet") {
		t.Errorf("litter is left: %s%s", out, stderr)
	}
	slow.Resume()
	c.run(t, "backup", "--compression", "none")

	// The download stops after a megabyte.
	far := testserver.StartProxy(t, strings.TrimPrefix(s3.Endpoint, "http://"))
	var env []string
	for _, kv := range c.env {
		env = append(env, strings.Replace(kv, s3.Endpoint, far.URL, 1))
	}
	r := &cli{env: env, dir: t.TempDir()}
	far.StallAfter(testserver.ToClient, 1<<20)
	target := filepath.Join(r.dir, "new", "data")
	staged := func() bool { return far.Bytes(testserver.ToClient) >= 1<<20 }
	args := []string{"restore", "latest", "--name", source.Members[0].Name, "--data-dir", target, "--allow-running"}
	if code := r.interrupted(t, staged, []syscall.Signal{syscall.SIGINT}, args...); code != 130 {
		t.Errorf("exit code %d, want 130", code)
	}
	if left := files(t, r.dir); len(left) > 0 {
		t.Errorf("the interrupted restore left %q", left)
	}
	if _, err := os.Stat(filepath.Join(r.dir, "new")); err == nil {
		t.Error("the folder made for the target is left")
	}
	far.Resume()
	r.run(t, args...)
}
