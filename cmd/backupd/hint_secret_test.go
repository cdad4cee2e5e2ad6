package main

import (
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// TestReport_HintWithSecret: a hint may repeat the command, which may hold a password.
func TestReport_HintWithSecret(t *testing.T) {
	for _, format := range []string{"simple", "json"} {
		var stderr strings.Builder
		a := &app{stdout: io.Discard, stderr: &stderr}
		root := newRootCommand(a)
		a.global.writeOut = format
		cmd, _, err := root.Find([]string{"restore"})
		if err != nil {
			t.Fatal(err)
		}
		err = backup.WithHint(errors.New("no"),
			"backupd restore --repo=file:///a@b '--initial-cluster=m=http://p:SECRET@h:1'")
		report(a, cmd, err)
		if got := stderr.String(); strings.Contains(got, "SECRET") || !strings.Contains(got, "file:///a@b") {
			t.Errorf("%s: %s", format, got)
		}
	}
}

// TestReport_Control: the name of a file is no command to a terminal.
func TestReport_Control(t *testing.T) {
	var stderr strings.Builder
	a := &app{stdout: io.Discard, stderr: &stderr}
	err := backup.WithHint(errors.New("a\x1b]0;t\a.db:\n\tno"), "b\x1b[31m\u009b.db")
	report(a, newRootCommand(a), err)
	if got := stderr.String(); !strings.HasPrefix(got, "Error: a?]0;t?.db:\n\tno\nHint: b?[31m?.db\n") {
		t.Errorf("%q", got)
	}
}
