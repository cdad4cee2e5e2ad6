package testserver

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

const namespaceVariable = "BACKUPD_TEST_NAMESPACE"

// MayMount reports whether this process may mount file systems that no other process sees. If
// not, it has run the same test in a process that may, with root rights in a user namespace
// where it has none here.
func MayMount(t *testing.T) bool {
	t.Helper()
	if os.Getenv(namespaceVariable) != "" {
		return true
	}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.count=1")
	cmd.Env = append(os.Environ(), namespaceVariable+"=yes")
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if os.Geteuid() != 0 {
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}}
	}
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "PASS") {
		t.Fatalf("with mounts of its own: %v\n%s", err, out)
	}
	return false
}

// MountOnto makes dir a mount point of its own, of the same file system, with what is in it.
func MountOnto(t testing.TB, dir string) {
	t.Helper()
	must(t, "make "+dir, os.MkdirAll(dir, 0o700))
	must(t, "mount "+dir, unix.Mount(dir, dir, "", unix.MS_BIND, ""))
	t.Cleanup(func() { must(t, "unmount "+dir, unix.Unmount(dir, unix.MNT_DETACH)) })
}

// MountSmall makes dir a file system of that size.
func MountSmall(t testing.TB, dir string, megabytes int) {
	t.Helper()
	must(t, "make "+dir, os.MkdirAll(dir, 0o700))
	size := fmt.Sprintf("size=%dm,mode=0700", megabytes)
	must(t, "mount "+dir, unix.Mount("tmpfs", dir, "tmpfs", 0, size))
	t.Cleanup(func() { must(t, "unmount "+dir, unix.Unmount(dir, unix.MNT_DETACH)) })
}
