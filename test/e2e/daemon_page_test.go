//go:build machine

package e2e_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/etcd-backupd/backupd/internal/testserver"
)

// TestMachine_DaemonPage runs the five minutes of docs/daemon.md in one shell, as they
// stand there but for the two addresses and the time of the next backup.
func TestMachine_DaemonPage(t *testing.T) {
	raw, err := os.ReadFile("../../docs/daemon.md")
	if err != nil {
		t.Fatal(err)
	}
	blocks := block.FindAllStringSubmatch(string(raw), -1)
	if len(blocks) != 9 || !strings.Contains(blocks[0][1], "etcd --data-dir") {
		t.Fatalf("%d blocks of commands in the page, this test knows 9, of which the first starts etcd", len(blocks))
	}
	real := testserver.StartCluster(t, testserver.Options{})
	server := testserver.FreeURL(t)
	dir := t.TempDir()
	for name, path := range map[string]string{"backupd": binary, "etcdctl": testserver.Binary(t, "3.7", "etcdctl")} {
		if err := os.Symlink(path, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	testserver.Tool(t, "curl", "curl")
	testserver.Tool(t, "jq", "jq")

	script := "trap 'kill $(jobs -p) 2>/dev/null || true' EXIT\n"
	for _, b := range blocks[1:] {
		script += b[1]
	}
	script = strings.NewReplacer("http://127.0.0.1:2379", real.Endpoints()[0], "127.0.0.1:9387",
		strings.TrimPrefix(server, "http://"),
		"*/10 * * * *", "@yearly").Replace(script)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-euxo", "pipefail", "-c", script)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) } // so that the trap is run
	cmd.WaitDelay = 10 * time.Second
	cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"), "DIR="+dir, "TMPDIR="+dir,
		"BACKUPD_SERVER="+server)
	out, err := cmd.CombinedOutput()
	if err != nil {
		log, _ := os.ReadFile(filepath.Join(dir, "daemon.log"))
		t.Fatalf("%v\n%s\nthe daemon's log:\n%s", err, out, log)
	}
	for _, want := range []string{
		"backupd.yaml is good", "0 failures", "prod     ok", `backupd_last_success_timestamp_seconds{cluster="prod",repository="main"}`,
		`"reason":"manual","state":"succeeded"`, "pinned: before the upgrade", "would remove 0 of 2 snapshots",
		"exit code 78",
	} {
		if !strings.Contains(string(out), want) {
			t.Errorf("%q is not in what the page's commands say:\n%s", want, out)
		}
	}
}
