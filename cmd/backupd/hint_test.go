package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
	"testing"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/cluster"
	"github.com/etcd-backupd/backupd/internal/disk"
)

// TestHint: each kind of error that is nobody's fault names the next step.
func TestHint(t *testing.T) {
	for want, err := range map[string]error{
		"free some space": syscall.ENOSPC, "raise its quota": syscall.EDQUOT, "for writing": syscall.EROFS,
		"local disk": disk.ErrNoLocks, "policy of the bucket": fs.ErrPermission,
		"--command-timeout": context.DeadlineExceeded, "etcdctl endpoint status": &cluster.NoMemberError{},
	} {
		if got := hint(fmt.Errorf("x: %w", err)); !strings.Contains(got, want) {
			t.Errorf("%v: got %q, want %q", err, got, want)
		}
	}
}

// TestHint_Damage: a member whose database is damaged has answered. Its endpoint is right.
func TestHint_Damage(t *testing.T) {
	err := &cluster.NoMemberError{Refusals: []cluster.Refusal{{Endpoint: "a", Err: backup.Corruptf("page 7")}}}
	if got, configured := hint(err), configuredHint(err); got != "" || configured != "" {
		t.Errorf("got %q and %q, want no advice to check endpoints", got, configured)
	}
}

// TestConfiguredHint: the daemon names keys of its configuration, and no flags, which
// it does not have. Whole commands have their flags.
func TestConfiguredHint(t *testing.T) {
	for _, err := range []error{
		&cluster.NoMemberError{}, &backup.RefusedError{Reason: "x", Override: "--force"},
		fmt.Errorf("x: %w", context.DeadlineExceeded), backup.WithHints(errors.New("x"), "give --user", "give user"),
	} {
		if strings.Contains(configuredHint(err), "--") || hint(err) == configuredHint(err) {
			t.Errorf("%T: %q, as the command line says %q", err, configuredHint(err), hint(err))
		}
	}
	both := backup.WithHint(errors.New("x"), "try again")
	if configuredHint(both) != "try again" || hint(both) != "try again" {
		t.Errorf("got %q and %q", configuredHint(both), hint(both))
	}
}
