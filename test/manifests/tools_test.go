package manifests

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// tool finds a program of a Debian package.
func tool(t *testing.T, name, pkg string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("%v: apt-get install --no-install-recommends %s", err, pkg)
	}
	return path
}

// run runs a program and returns everything it wrote.
func run(t *testing.T, name string, args ...string) (string, error) {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), name, args...).CombinedOutput()
	return string(out), err
}

var built struct {
	once sync.Once
	dir  string
	err  error
	out  string
}

// backupd builds the program once.
func backupd(t *testing.T) string {
	t.Helper()
	built.once.Do(func() {
		if built.dir, built.err = os.MkdirTemp("", "backupd-manifests-"); built.err != nil {
			return
		}
		built.out, built.err = run(t, "go", "-C", "../..", "build", "-o", filepath.Join(built.dir, "backupd"),
			"./cmd/backupd")
	})
	if built.err != nil {
		t.Fatalf("build backupd: %v\n%s", built.err, strings.TrimSpace(built.out))
	}
	return filepath.Join(built.dir, "backupd")
}

// TestMain wants -count=1: what is tested here lies outside of this module, where
// the go command does not see changes, and it would show an old result.
func TestMain(m *testing.M) {
	flag.Parse()
	counted := false
	flag.Visit(func(f *flag.Flag) { counted = counted || f.Name == "test.count" })
	if !counted {
		fmt.Fprintln(os.Stderr,
			"run go test with -count=1: a result from the cache would not see changes of deploy and docs")
		os.Exit(2)
	}
	code := m.Run()
	if built.dir != "" {
		_ = os.RemoveAll(built.dir) // a temporary folder
	}
	os.Exit(code)
}
