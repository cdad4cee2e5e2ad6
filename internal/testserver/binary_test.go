package testserver_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/testserver"
)

// TestBinary builds everything that the tests of the other packages need, so
// running it alone prepares a machine.
func TestBinary(t *testing.T) {
	for _, version := range testserver.Versions(t) {
		names := []string{"etcd", "etcdctl", "etcdutl"}
		if version == "3.4" {
			names = []string{"etcd"} // etcdutl came later, and etcdctl is another package
		}
		for _, name := range names {
			arg := "version"
			if name == "etcd" {
				arg = "--version"
			}
			got := run(t, testserver.Binary(t, version, name), arg)
			if want := "ersion: " + version + "."; !strings.Contains(got, want) {
				t.Errorf("%s of %s says %q, want %q in it", name, version, got, want)
			}
		}
	}
	if got := run(t, testserver.VersityGW(t), "--version"); !strings.Contains(got, "Version") {
		t.Errorf("versitygw says %q", got)
	}
}

func TestBinary_Override(t *testing.T) {
	dir := t.TempDir()
	want := filepath.Join(dir, "etcdctl")
	if err := os.WriteFile(want, []byte("#!/bin/sh\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("BACKUPD_TEST_ETCD_3_6", dir)
	if got := testserver.Binary(t, "3.6", "etcdctl"); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func run(t *testing.T, path string, args ...string) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), path, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", path, args, err, out)
	}
	return string(out)
}
