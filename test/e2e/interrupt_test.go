package e2e_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/etcd-backupd/backupd/internal/testserver"
)

// interrupted starts backupd, waits until reached says that it hangs in the
// middle, interrupts it, and returns its exit code.
func (c *cli) interrupted(t *testing.T, reached func() bool, args ...string) int {
	t.Helper()
	cmd := exec.Command(binary, args...)
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
	if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	select {
	case <-done:
	case <-time.After(45 * time.Second):
		_ = cmd.Process.Kill()
		t.Fatalf("still running after the interrupt:\n%s", &out)
	}
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
	if code := c.interrupted(t, spooled, "backup"); code != 130 {
		t.Errorf("exit code %d, want 130", code)
	}
	if left := files(t, c.dir); len(left) > 0 {
		t.Errorf("the spool folder holds %q", left)
	}
	if out := c.run(t, "list", "--cluster", "", "-w", "json"); !strings.Contains(out, `"snapshots":[]`) {
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
	if code := r.interrupted(t, staged, args...); code != 130 {
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
