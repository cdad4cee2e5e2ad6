package testserver

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

const crashEnv = "BACKUPD_TEST_CRASH_CHILD"

// TestCrash kills a test binary that runs servers, and wants none of them, nor
// their files outside its own directories, to outlive it.
func TestCrash(t *testing.T) {
	if os.Getenv(crashEnv) != "" {
		crashChild(t)
		return
	}
	VersityGW(t) // a build would come in between what the child prints
	// The child cannot clean up its directories; this test does.
	t.Setenv("TMPDIR", t.TempDir())
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestCrash$", "-test.v")
	cmd.Env = append(os.Environ(), crashEnv+"=1")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pids, s3dir := childServers(t, bufio.NewScanner(out))
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Fatal("the child ended by itself")
	}
	for _, pid := range pids {
		err := waitUntil(t.Context(), 10*time.Second, func(context.Context) error { return gone(pid) })
		if err != nil {
			t.Errorf("a server outlives the test binary: %v", err)
			_ = syscall.Kill(pid, syscall.SIGKILL) // it may have ended by now
		}
	}

	if err := removeOrphans(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(s3dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("directory of the dead S3 server: got %v, want it gone", err)
	}
}

// crashChild starts one server of each kind, says which, and waits for death.
func crashChild(t *testing.T) {
	c := StartCluster(t, Options{Size: 2})
	c.Members[0].Pause()
	StartS3(t)
	for _, pid := range []int{c.Members[0].PID(), c.Members[1].PID(), shared.gw.proc.pid()} {
		fmt.Printf("\npid %d\n", pid)
	}
	fmt.Printf("\ndir %s\n", shared.gw.dir)
	<-t.Context().Done()
}

func childServers(t *testing.T, lines *bufio.Scanner) (pids []int, s3dir string) {
	t.Helper()
	for lines.Scan() {
		kind, value, _ := strings.Cut(lines.Text(), " ")
		switch kind {
		case "pid":
			pid, err := strconv.Atoi(value)
			if err != nil {
				t.Fatal(err)
			}
			pids = append(pids, pid)
		case "dir":
			if len(pids) != 3 {
				t.Fatalf("got processes %v, want three", pids)
			}
			return pids, value
		}
	}
	t.Fatalf("the child told of %v and ended: %v", pids, lines.Err())
	return nil, ""
}

// gone returns nil when the process has ended; whether somebody has reaped it
// is not our affair.
func gone(pid int) error {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if _, state, _ := strings.Cut(string(stat), ") "); strings.HasPrefix(state, "Z") {
		return nil
	}
	return fmt.Errorf("process %d runs: %s", pid, stat)
}
