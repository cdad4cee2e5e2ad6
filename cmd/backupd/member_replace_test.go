package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestStart: what starts a member gets no password of this process, and ends with its failure or
// without one.
func TestStart(t *testing.T) {
	for _, name := range []string{"ETCDCTL_USER", "ETCDCTL_PASSWORD", "BACKUPD_REPOSITORY", "AWS_SECRET_ACCESS_KEY"} {
		t.Setenv(name, "s3cret")
	}
	t.Setenv("ETCD_NAME", "m2")
	at := filepath.Join(t.TempDir(), "environment")
	ended := func(command string) error {
		t.Helper()
		failed, err := start(command, []string{at})
		if err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-failed:
			return err
		case <-time.After(time.Minute):
			t.Fatal("it has not ended")
			return nil
		}
	}
	if err := ended(`env > "$1"`); err != nil {
		t.Error(err)
	}
	raw, err := os.ReadFile(at)
	if err != nil || strings.Contains(string(raw), "s3cret") || !strings.Contains(string(raw), "ETCD_NAME=m2") ||
		!strings.Contains(string(raw), "PATH=") {
		t.Errorf("%v: %s", err, raw)
	}
	if err := ended("exit 3"); err == nil || !strings.Contains(err.Error(), "exit status 3") {
		t.Errorf("got %v", err)
	}
}
