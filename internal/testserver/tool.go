package testserver

import (
	"os"
	"os/exec"
	"testing"
)

// Tool returns the path of a program of a Debian package. It installs nothing:
// a test that needs one has the build tag machine, and .ci/run installs the
// packages before it runs those.
func Tool(t testing.TB, program, pkg string) string {
	t.Helper()
	path, err := exec.LookPath(program)
	if err != nil {
		t.Fatalf("testserver: %v: apt-get install --no-install-recommends %s", err, pkg)
	}
	return path
}

// Root fails a test that was not started by root. Such a test gives files away
// or mounts file systems, and has the build tag machine.
func Root(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("testserver: this test needs root, on a machine that may be thrown away")
	}
}
