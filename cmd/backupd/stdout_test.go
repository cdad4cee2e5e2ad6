package main

import (
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/etcd-backupd/backupd/internal/server"
)

// cut is a disk that gets full.
type cut struct{ room int }

func (c *cut) Write(p []byte) (int, error) {
	if len(p) > c.room {
		n := c.room
		c.room = 0
		return n, &os.PathError{Op: "write", Path: "/dev/stdout", Err: syscall.ENOSPC}
	}
	c.room -= len(p)
	return len(p), nil
}

// TestOutput_Full: whatever a command prints, and wherever the output ends, half an answer
// is a failure. The scripts try the commands that need a repository, with /dev/full.
func TestOutput_Full(t *testing.T) {
	addr := startServer(t, server.Options{Backend: someClusters{clusters: []server.Cluster{well("a"), well("b")}}})
	for _, line := range []string{
		"version", "version -w json", "config example", "config schema", "--help", "help restore", "list --help",
		"completion bash", "completion zsh", "__complete list --write-out ",
		"status --server http://" + addr, "status -w json --server http://" + addr, "status -w table --server http://" + addr,
	} {
		args := strings.Fields(line)
		code, whole, stderr := backupd(args...)
		if code != exitOK || whole == "" {
			t.Fatalf("%s: exit code %d\n%s%s", line, code, whole, stderr)
		}
		for _, room := range []int{0, 1, len(whole) / 2, len(whole) - 1} {
			var errs strings.Builder
			code := run(args, strings.NewReader(""), &cut{room}, &errs)
			if code != exitFailed || !strings.Contains(errs.String(), "write standard output: no space left on device") {
				t.Errorf("%s: exit code %d after %d of %d bytes\n%s", line, code, room, len(whole), errs.String())
			}
		}
	}
}

// TestOutput_End: the error of the command stays the first, and gives the exit code.
func TestOutput_End(t *testing.T) {
	full := func() *output {
		o := &output{w: &cut{}}
		_, _ = o.Write([]byte("x"))
		return o
	}
	partial := &partialError{errors.New("one of two")}
	if err := full().end(partial); exitCode(err) != exitPartial || !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("got %v", err)
	}
	if err := full().end(nil); exitCode(err) != exitFailed || hint(err) != "look at what it did before you run it again" {
		t.Errorf("got %v", err)
	}
	o := full()
	_, printed := o.Write([]byte("y"))
	if err := o.end(printed); err == nil || err.Error() != "write standard output: no space left on device" {
		t.Errorf("got %v", err)
	}
	if err := (&output{w: &cut{1}}).end(nil); err != nil {
		t.Errorf("got %v", err)
	}
}

// TestOutput_Closed: a file that cannot be closed was perhaps not written.
func TestOutput_Closed(t *testing.T) {
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	o := &output{w: f}
	if _, err := o.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if err := o.end(nil); err != nil {
		t.Fatal(err)
	}
	if err := (&output{w: f}).end(nil); !errors.As(err, new(*outputError)) {
		t.Errorf("got %v", err)
	}
}

func TestOutput_Colours(t *testing.T) {
	terminal, err := os.OpenFile("/dev/ptmx", os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	t.Setenv("TERM", "xterm")
	t.Setenv("NO_COLOR", "")
	if !colourful(&output{w: terminal}) {
		t.Error("no colours on a terminal")
	}
}
