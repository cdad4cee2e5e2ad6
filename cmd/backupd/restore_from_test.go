package main

import (
	"errors"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/etcd-backupd/backupd/internal/members"
	"github.com/etcd-backupd/backupd/internal/members/settings"
)

// TestStartOf: what is printed for a shell means there what it says, whatever the names of the
// operator's files are.
func TestStartOf(t *testing.T) {
	for _, c := range []struct {
		means            members.Means
		unit, file, want string
	}{
		{members.Systemd, "etcd.service", "", "systemctl start etcd.service"},
		{members.Systemd, `etcd@a\x2db.service`, "", `systemctl start etcd@a\\x2db.service`},
		{members.Systemd, "$(touch x).service", "", `systemctl start '$(touch x).service'`},
		{members.Supervisord, "etcd;x", "", `supervisorctl start etcd\;x`},
		{members.Script, "", "/x/my $(start).sh", `run '/x/my $(start).sh'`},
		{members.StaticPod, "etcd", "/x/a b.yaml", "put the manifest '/x/a b.yaml' back into the folder of the kubelet"},
		{members.Container, "a b", "/x/y", "start the container 'a b' as /x/y:3 does"},
		{members.Container, "", "/x/y", "start the container as /x/y:3 does"},
		{members.ByHand, "", "/x", ""},
	} {
		h := &settings.Host{Start: members.Start{
			Means: c.means, Unit: c.unit, Of: members.Position{File: c.file, Line: 3},
		}}
		if got := startOf(h); got != c.want {
			t.Errorf("got %s, want %s", got, c.want)
		}
	}
}

// TestReadPlan_NoFile: a plan that is no regular file is neither waited for nor read without end.
func TestReadPlan_NoFile(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{pipe, t.TempDir(), "/dev/zero"} {
		_, err := readPlan(file)
		var at *members.FileError
		if !errors.As(err, &at) || at.At.File != file {
			t.Errorf("%s: %v", file, err)
		}
	}
}
