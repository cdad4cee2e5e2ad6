package testserver

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/gofrs/flock"
)

// Debian returns the path of a program, and installs the Debian package that
// holds it where it is missing. Packages of several test processes are
// installed one after the other.
func Debian(t testing.TB, program, pkg string) string {
	t.Helper()
	if path, err := exec.LookPath(program); err == nil {
		return path
	}
	lock := flock.New(filepath.Join(os.TempDir(), "backupd-test-apt.lock"))
	must(t, "wait for other installations", lock.Lock())
	defer lock.Close() //nolint:errcheck // closing gives the lock back or the process ends
	if path, err := exec.LookPath(program); err == nil {
		return path
	}
	for _, args := range [][]string{{"update"}, {"install", "-y", "--no-install-recommends", pkg}} {
		cmd := exec.Command("apt-get", append([]string{"-q", "-o", "DPkg::Lock::Timeout=300"}, args...)...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("testserver: %s is missing and cannot be installed (apt-get install %s): %v\n%s", program, pkg, err, out)
		}
	}
	path, err := exec.LookPath(program)
	must(t, "find "+program+" after its installation", err)
	return path
}
