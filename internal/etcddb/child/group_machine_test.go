//go:build machine && linux

package child

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// group256 makes a control group of 256 MiB, and returns its folder and the file with the
// number of processes that the kernel has killed in it.
func group256(t *testing.T) (dir, kills string) {
	t.Helper()
	dir, limit, kills := "/sys/fs/cgroup/backupd-test", "memory.max", "memory.events"
	if _, err := os.Stat("/sys/fs/cgroup/memory"); err == nil { // version 1
		dir, limit, kills = "/sys/fs/cgroup/memory/backupd-test", "memory.limit_in_bytes", "memory.oom_control"
	} else if err := os.WriteFile("/sys/fs/cgroup/cgroup.subtree_control", []byte("+memory"), 0); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, limit), []byte("268435456"), 0); err != nil {
		t.Fatal(err)
	}
	return dir, filepath.Join(dir, kills)
}

// TestMachineGroup: in a control group, as a pod is, a child that takes more memory than
// there is ends, and its parent says what happened. The kernel has to kill nobody as long
// as the child has its limit, and kills the child where it has none.
func TestMachineGroup(t *testing.T) {
	for _, c := range []struct{ room, want, killed string }{
		{"", "child process needs more memory than the ", "oom_kill 0"},
		{"17179869184", "child process was killed by the kernel for lack of memory", "oom_kill 1"},
	} {
		dir, kills := group256(t)
		// The shell enters the group, and the parent is in it from its beginning.
		parent := exec.CommandContext(t.Context(), "sh", "-c", `echo $$ > "$1" && exec "$2"`, "sh",
			filepath.Join(dir, "cgroup.procs"), os.Args[0])
		parent.Env = append(os.Environ(), eaterEnv+"=eat", eaterRoomEnv+"="+c.room)
		out, err := parent.CombinedOutput()
		if err != nil || !strings.HasPrefix(string(out), c.want) {
			t.Errorf("room %q: the parent ends with %v and says %q, want %q", c.room, err, out, c.want)
		}
		raw, err := os.ReadFile(kills)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(raw), c.killed+"\n") {
			t.Errorf("room %q: %s: %s, want %s", c.room, kills, raw, c.killed)
		}
		if err := os.Remove(dir); err != nil {
			t.Fatal(err)
		}
	}
}
