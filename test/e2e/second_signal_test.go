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

// TestSecondSignal: a daemon that is asked to stop waits for what it does. Asked again, it
// ends at once.
func TestSecondSignal(t *testing.T) {
	source := testserver.StartCluster(t, testserver.Options{})
	c := newCLI(t)
	fifo, conf := filepath.Join(c.dir, "fifo"), filepath.Join(c.dir, "backupd.yaml")
	begun := filepath.Join(c.dir, "begun")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	// A receiver that does not end is waited for.
	write(t, conf, fmt.Sprintf(`repositories:
  main: {url: "file://%[1]s/repository"}
clusters:
  - {name: prod, endpoints: [%[2]q], snapshot: {schedule: "@yearly"}}
daemon:
  server: {listen: "off"}
  spool: {folder: %[1]q, min-free: 0B}
  notifications:
    - {command: {program: sh, args: [-c, "trap '' TERM INT; echo >%[4]s; cat %[3]s"]}, on: [success]}
`, c.dir, source.Endpoints()[0], fifo, begun))
	c.run(t, "init", "--repo", "file://"+filepath.Join(c.dir, "repository"))
	log, err := os.Create(filepath.Join(c.dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	cmd := exec.Command(binary, "run", "--config", conf)
	cmd.Env, cmd.Stdout, cmd.Stderr = c.env, log, log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = cmd.Wait() }()
	text := func() string {
		raw, _ := os.ReadFile(log.Name())
		return string(raw)
	}
	waitFor(t, "the receiver", func() bool {
		select {
		case <-done:
			t.Fatalf("the daemon ended:\n%s", text())
		default:
		}
		_, err := os.Stat(begun)
		return err == nil
	})
	in, err := os.OpenFile(fifo, os.O_RDWR, 0) // the receiver ends when it is closed
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	signal := func() {
		t.Helper()
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
	}
	signal()
	waitFor(t, "the second signal to be heard", func() bool {
		select {
		case <-done:
			return true
		default:
			signal()
			return false
		}
	})
	if code := cmd.ProcessState.ExitCode(); code != 143 || !strings.Contains(text(), "again") {
		t.Errorf("exit code %d, want 143:\n%s", code, text())
	}
}
