// Command backupd backs up, restores and rescues etcd clusters.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/etcd-backupd/backupd/internal/etcddb"
)

func main() {
	// Databases are inspected in a child process, which is this program again.
	if code, ok := etcddb.ChildMain(); ok {
		os.Exit(code)
	}
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// interruptError is the cause of a context that a signal ended.
type interruptError struct{ sig os.Signal }

func (e *interruptError) Error() string { return "interrupted by " + e.sig.String() }

// run is the whole program; it returns the exit code.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	defer signal.Stop(signals)
	go func() {
		select {
		case sig := <-signals:
			cancel(&interruptError{sig})
		case <-ctx.Done():
		}
	}()

	a := &app{stdin: stdin, stdout: stdout, stderr: stderr}
	root := newRootCommand(a)
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	var interrupt *interruptError
	if cause := context.Cause(ctx); err != nil && errors.As(cause, &interrupt) && !errors.As(err, &interrupt) {
		err = fmt.Errorf("%w: %w", cause, err)
	}
	a.progress.stop()
	return report(a, cmd, err)
}

// app is what commands share: the streams and the global flags.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	global         globalFlags
	log            logs
	progress       *progress
}

func newRootCommand(a *app) *cobra.Command {
	cobra.EnablePrefixMatching = true // as etcdutl
	root := &cobra.Command{
		Use:   "backupd",
		Short: "Backs up, restores and rescues etcd clusters",
		Long: `backupd backs up, restores and rescues etcd clusters.

A backup exists when its manifest does: everything is written once and checked, and
the manifest is written last. A stored snapshot is etcd's own file, compressed with
zstd and, if you want, encrypted with age. So "age -d | zstd -d" and then
"etcdutl snapshot restore" always work, without backupd.

My cluster is gone, what now?
  backupd list    --repo REPO
  backupd restore --repo REPO latest --name m1 --data-dir /var/lib/etcd --dry-run
  backupd restore --repo REPO latest --name m1 --data-dir /var/lib/etcd

REPO is file:///path or s3://bucket/prefix. The flags of etcdctl and etcdutl mean here
what they mean there, and ETCDCTL_* variables work. Each flag can also be given as
BACKUPD_<FLAG> in the environment, except those that override a safety check.`,
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: false},
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error { return a.begin(cmd) },
	}
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return flagError(err) })
	a.global.register(root)
	addGroup(root, "daemon", "The daemon and its configuration:",
		newRunCommand(a), newCheckCommand(a), newConfigCommand(a), newStatusCommand(a))
	addGroup(root, "repo", "Backups in a repository:",
		newInitCommand(a), newBackupCommand(a), newListCommand(a), newShowCommand(a), newVerifyCommand(a),
		newRestoreCommand(a), newPinCommand(a), newUnpinCommand(a), newPruneCommand(a), newRmCommand(a),
		newTimelineCommand(a))
	addGroup(root, "file", "Snapshots as plain files, like etcdctl and etcdutl:", newSnapshotCommand(a))
	root.AddCommand(newDemoCommand(a), newVersionCommand(a))
	return root
}

// addGroup adds commands that the help shows under one title.
func addGroup(root *cobra.Command, id, title string, commands ...*cobra.Command) {
	root.AddGroup(&cobra.Group{ID: id, Title: title})
	for _, c := range commands {
		c.GroupID = id
	}
	root.AddCommand(commands...)
}

// begin runs before each command: flags from the environment, logs, progress.
func (a *app) begin(cmd *cobra.Command) error {
	if err := applyEnvironment(cmd, os.LookupEnv); err != nil {
		return err
	}
	if err := a.global.check(); err != nil {
		return err
	}
	limitMemory(cmd)
	a.progress = newProgress(a.stderr)
	var err error
	a.log, err = newLogs(a.progress, a.global.logFormat, a.global.logLevel)
	if err != nil {
		return &usageError{err}
	}
	for _, name := range a.global.ignored(cmd) {
		a.log.slog.Warn("flag has no effect here", "flag", "--"+name)
	}
	return nil
}

// memoryLimit is where the garbage collector begins to work harder. Transfers hold
// some 70 MiB of buffers, and without a limit the heap may grow to twice that.
const memoryLimit = 128 << 20

// limitMemory keeps the process small, unless GOMEMLIMIT sets another limit.
// The demonstration runs three etcd servers in this process.
func limitMemory(cmd *cobra.Command) {
	if os.Getenv("GOMEMLIMIT") == "" && cmd.Name() != "demo" {
		debug.SetMemoryLimit(memoryLimit)
	}
}

// arguments says how many arguments a command takes, as a usage error.
func arguments(n int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != n {
			return &usageError{fmt.Errorf("%s expects %s", cmd.CommandPath(), what)}
		}
		return nil
	}
}
