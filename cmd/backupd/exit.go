package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
	"unicode"

	"github.com/kballard/go-shellquote"
	"github.com/spf13/cobra"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/cluster"
	"github.com/etcd-backupd/backupd/internal/config"
	"github.com/etcd-backupd/backupd/internal/disk"
	"github.com/etcd-backupd/backupd/internal/kubeapi"
	"github.com/etcd-backupd/backupd/internal/members"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/secret"
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
	exitHangup      = 129
	exitInterrupted = 130
	exitTerminated  = 143
)

// exitHelp is the table for --help. exitCode decides.
const exitHelp = `Exit codes: 0 done, 1 failed, 3 done in part (some clusters or files),
4 corrupt, tampered or diverged, 5 no such snapshot, cluster or repository,
6 refused for safety,
64 wrong usage, 78 configuration, 129/130/143 interrupted.`

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
		switch interrupt.sig {
		case syscall.SIGTERM:
			return exitTerminated
		case syscall.SIGHUP:
			return exitHangup
		}
		return exitInterrupted
	case errors.As(err, &usage):
		return exitUsage
	case errors.As(err, &conf), errors.As(err, new(*members.FileError)), errors.As(err, new(*kubeapi.FileError)):
		return exitConfig
	case errors.As(err, &partial):
		return exitPartial
	case errors.As(err, &refused), errors.As(err, new(*repository.UnmarkedError)), errors.Is(err, backup.ErrUnordered):
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
	case errors.As(err, &conf) && missingHint(conf) != "":
		return missingHint(conf)
	case errors.As(err, &conf):
		return "'backupd config example' shows every key with its meaning"
	case errors.As(err, &lost) && !errors.Is(err, backup.ErrCorrupt):
		return "check --endpoints and the TLS flags: 'etcdctl endpoint status' must work with the same ones"
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return "free some space on that file system, or raise its quota"
	case errors.Is(err, disk.ErrNoLocks):
		return "use a folder on a local disk, or give the NFS mount its lock service (rpc.statd; not 'nolock')"
	case errors.Is(err, syscall.EROFS):
		return "mount that file system for writing, or name another folder"
	case errors.Is(err, fs.ErrPermission):
		return "check the permissions of the folder, or the credentials and the policy of the bucket"
	case errors.Is(err, context.DeadlineExceeded):
		return "a longer --command-timeout may help"
	}
	return ""
}

// missingHint is the hint for a configuration that is good, but for files that are not there.
func missingHint(conf *config.Error) string {
	var files, folders []string
	for _, p := range conf.Problems {
		switch {
		case p.Missing == "":
			return ""
		case strings.HasSuffix(p.Path, ".folder"):
			folders = append(folders, p.Missing)
		default:
			files = append(files, p.Missing)
		}
	}
	var hints []string
	if len(folders) > 0 {
		hints = append(hints, "make the folder, for the user that backupd runs as: "+
			shellquote.Join(append([]string{"install", "-d", "-m", "0700"}, folders...)...))
	}
	if len(files) > 0 {
		hints = append(hints, "put the missing file there, readable for the user that backupd runs as, or correct its path")
	}
	return strings.Join(hints, "\n")
}

// hintFor is the hint for the user of a command: one that works by a configuration has no
// flags for what that says.
func (a *app) hintFor(err error) string {
	if a.configured {
		return configuredHint(err)
	}
	return hint(err)
}

// configuredHint is hint for those who have a configuration file: it names keys.
func configuredHint(err error) string {
	var (
		given   *backup.HintError
		refused *backup.RefusedError
		lost    *cluster.NoMemberError
	)
	switch {
	case errors.As(err, &given):
		return given.Configured()
	case errors.As(err, &refused):
		return "" // no flag overrides it here
	case errors.As(err, &lost) && !errors.Is(err, backup.ErrCorrupt):
		return "check endpoints and tls of the cluster: 'etcdctl endpoint status' must work with the same ones"
	case errors.Is(err, context.DeadlineExceeded):
		return "a longer snapshot.request-timeout or snapshot.timeout may help"
	}
	return hint(err)
}

// failure is an error for machines. Wrong usage is told in words: it may be that of
// --write-out, and a person has to correct it.
type failure struct {
	Error    string `json:"error"`
	Hint     string `json:"hint,omitempty"`
	ExitCode int    `json:"exitCode"`
}

// dropIn reports whether cmd stands in for one of etcd's tools: these tell errors in words,
// whatever form the answer has.
func dropIn(cmd *cobra.Command) bool { return cmd.HasParent() && cmd.Parent().Name() == "snapshot" }

// report prints how the command ended and returns its exit code.
func report(a *app, cmd *cobra.Command, err error) int {
	if err == nil {
		return exitOK
	}
	// Cobra's own complaints about the command line have no type.
	if !cmd.HasParent() && exitCode(err) == exitFailed && !errors.As(err, new(*outputError)) {
		err = &usageError{err}
	}
	code := exitCode(err)
	text := visible(secret.Show(err.Error())) // a secret may stand where something else was asked for
	if a.global.writeOut == "json" && code != exitUsage && !dropIn(cmd) {
		// Standard error, like every error: the answer has standard output for itself.
		_ = printJSON(a.stderr, kindError, failure{text, secret.Show(a.hintFor(err)), code})
		return code
	}
	fmt.Fprintf(a.stderr, "Error: %s\n", text)
	if h := visible(secret.Show(a.hintFor(err))); h != "" {
		fmt.Fprintf(a.stderr, "Hint: %s\n", h)
	}
	if code == exitUsage {
		fmt.Fprintf(a.stderr, "See '%s --help'.\n", cmd.CommandPath())
	}
	return code
}

// visible is text without what would be a command to a terminal: the name of a file may hold one.
func visible(text string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\n' && r != '\t' {
			return '?'
		}
		return r
	}, text)
}
