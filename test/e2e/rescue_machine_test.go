//go:build machine

package e2e_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/etcd-backupd/backupd/internal/testserver"
)

// TestMachine_WithoutProc: in the chroot of a rescue system that has no /proc a snapshot is
// inspected and restored, however the program was started.
func TestMachine_WithoutProc(t *testing.T) {
	testserver.Root(t)
	source := testserver.StartCluster(t, testserver.Options{Version: "3.6"})
	testserver.Fill(t, source.Client(t), testserver.FillOptions{Keys: 100})
	c := newCLI(t, "BACKUPD_CLUSTER=prod", "ETCDCTL_ENDPOINTS="+source.Members[0].Endpoint)
	root := t.TempDir()
	repo := filepath.Join(root, "repo")
	for _, dir := range []string{repo, filepath.Join(root, "bin"), filepath.Join(root, "tmp")} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	c.run(t, "init", "--repo", "file://"+repo)
	c.run(t, "backup", "--repo", "file://"+repo)
	c.run(t, "snapshot", "save", filepath.Join(root, "snap.db"))
	build := exec.Command("go", "build", "-trimpath", "-o", filepath.Join(root, "bin", "backupd"), "../../cmd/backupd")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	inside := func(as string, args ...string) string {
		t.Helper()
		cmd := &exec.Cmd{Path: "/bin/backupd", Args: append([]string{as}, args...), Dir: "/",
			Env:         []string{"PATH=/bin", "BACKUPD_SPOOL_MIN_FREE=0B", "TMPDIR=/tmp"},
			SysProcAttr: &syscall.SysProcAttr{Chroot: root}}
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		if err := cmd.Run(); err != nil {
			t.Errorf("%s %q: %v\n%s", as, args, err, &out)
		}
		return out.String()
	}
	for i, as := range []string{"/bin/backupd", "backupd", "bin/backupd"} {
		if out := inside(as, "snapshot", "status", "/snap.db", "-w", "json"); !strings.Contains(out, `"totalKey"`) {
			t.Errorf("status: %s", out)
		}
		data := fmt.Sprintf("/data%d", i)
		inside(as, "snapshot", "restore", "/snap.db", "--data-dir", data)
		inside(as, "verify", "--repo", "file:///repo", "--cluster", "prod", "latest")
		inside(as, "restore", "--repo", "file:///repo", "--cluster", "prod", "latest", "--name", "m1", "--data-dir",
			data+"b",
			"--allow-running")
		for _, dir := range []string{data, data + "b"} {
			if _, err := os.Stat(filepath.Join(root, dir, "member", "snap", "db")); err != nil {
				t.Error(err)
			}
		}
	}
}

// TestMachine_DemoWithoutRoom: a full temporary folder is an error that says what to do.
func TestMachine_DemoWithoutRoom(t *testing.T) {
	testserver.Root(t)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=100m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	c := newCLI(t, "TMPDIR="+dir)
	_, stderr, err := c.try("demo")
	if ended, ok := errors.AsType[*exec.ExitError](err); !ok || ended.ExitCode() != 1 || !strings.Contains(stderr, dir) ||
		!strings.Contains(stderr, "TMPDIR=") || strings.Contains(stderr, "panic") {
		t.Errorf("%v: %s", err, stderr)
	}
}
