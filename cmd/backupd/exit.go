package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/cluster"
	"github.com/etcd-backupd/backupd/internal/config"
	"github.com/etcd-backupd/backupd/internal/repository"
)

// Exit codes. 2 stays free: a Go program that crashes exits with it.
const (
	exitOK          = 0
	exitFailed      = 1
	exitPartial     = 3
	exitIntegrity   = 4
	exitNotFound    = 5
	exitRefused     = 6
	exitUsage       = 64
	exitConfig      = 78
	exitInterrupted = 130
	exitTerminated  = 143
)

// exitHelp is the table for --help. exitCode decides.
const exitHelp = `Exit codes: 0 done, 1 failed, 3 done in part (some clusters),
4 corrupt, tampered or diverged, 5 no such snapshot, cluster or repository,
6 refused for safety,
64 wrong usage, 78 configuration, 130/143 interrupted.`

// usageError is a mistake in the command line.
type usageError struct{ err error }

func (e *usageError) Error() string { return e.err.Error() }
func (e *usageError) Unwrap() error { return e.err }

// isNotFound reports whether a snapshot, a repository or a file is missing.
func isNotFound(err error) bool { return errors.Is(err, fs.ErrNotExist) }

// exitCode is the only place where an error becomes a number.
func exitCode(err error) int {
	var (
		interrupt *interruptError
		usage     *usageError
		conf      *config.Error
		refused   *backup.RefusedError
		partial   *partialError
	)
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &interrupt):
		if interrupt.sig == syscall.SIGTERM {
			return exitTerminated
		}
		return exitInterrupted
	case errors.As(err, &usage):
		return exitUsage
	case errors.As(err, &conf):
		return exitConfig
	case errors.As(err, &partial):
		return exitPartial
	case errors.As(err, &refused):
		return exitRefused
	case errors.Is(err, backup.ErrCorrupt):
		return exitIntegrity
	case isNotFound(err), errors.As(err, new(*repository.AbsentError)):
		return exitNotFound
	}
	return exitFailed
}

// hint returns the line that follows an error if a person can do something.
func hint(err error) string {
	var (
		given   *backup.HintError
		refused *backup.RefusedError
		conf    *config.Error
		lost    *cluster.NoMemberError
	)
	switch {
	case errors.As(err, &given):
		return given.Hint
	case errors.As(err, &refused) && refused.Override != "":
		return "override with " + refused.Override
	case errors.As(err, &conf):
		return "'backupd config example' shows every key with its meaning"
	case errors.As(err, &lost):
		return "check --endpoints and the TLS flags: 'etcdctl endpoint status' must work with the same ones"
	case errors.Is(err, syscall.ENOSPC):
		return "free some space on that file system"
	case errors.Is(err, fs.ErrPermission):
		return "check the permissions of the folder, or the credentials and the policy of the bucket"
	case errors.Is(err, context.DeadlineExceeded):
		return "a longer --command-timeout may help"
	}
	return ""
}

// report prints how the command ended and returns its exit code.
func report(a *app, cmd *cobra.Command, err error) int {
	if err == nil {
		return exitOK
	}
	// Cobra's own complaints about the command line have no type.
	if !cmd.HasParent() && exitCode(err) == exitFailed {
		err = &usageError{err}
	}
	code := exitCode(err)
	if a.global.writeOut == "json" && code != exitUsage {
		raw, _ := json.Marshal(map[string]any{
			"error": map[string]any{"message": err.Error(), "hint": hint(err), "exitCode": code},
		})
		fmt.Fprintf(a.stderr, "%s\n", raw)
	}
	fmt.Fprintf(a.stderr, "Error: %v\n", err)
	if h := hint(err); h != "" {
		fmt.Fprintf(a.stderr, "Hint: %s\n", h)
	}
	if code == exitUsage {
		fmt.Fprintf(a.stderr, "See '%s --help'.\n", cmd.CommandPath())
	}
	return code
}
