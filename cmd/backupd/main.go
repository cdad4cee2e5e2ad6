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
	"slices"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/etcd-backupd/backupd/internal/etcddb"
	"github.com/etcd-backupd/backupd/internal/priority"
	"github.com/etcd-backupd/backupd/internal/rescue"
)

func main() {
	// Databases are inspected and logs replayed in a child process, which is this program
	// again.
	for _, child := range []func() (int, bool){etcddb.ChildMain, rescue.ChildMain} {
		if code, ok := child(); ok {
			os.Exit(code)
		}
	}
	os.Exit(run(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// interruptError is the cause of a context that a signal ended.
type interruptError struct{ sig os.Signal }

func (e *interruptError) Error() string { return "interrupted by " + e.sig.String() }

// run is the whole program; it returns the exit code. If stdout is a file, run closes it.
func run(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	if !signal.Ignored(syscall.SIGHUP) { // nohup ignores it
		signal.Notify(signals, syscall.SIGHUP) // the connection to the terminal was lost
	}
	defer signal.Stop(signals)
	go func() {
		select {
		case sig := <-signals:
			cancel(&interruptError{sig})
		case <-ctx.Done():
			return
		}
		// Who asks twice does not want to wait for what the first one ends in good order.
		again := &interruptError{<-signals}
		fmt.Fprintf(stderr, "Error: %v again: ended at once\n", again)
		os.Exit(exitCode(again))
	}()

	out := &output{w: stdout}
	a := &app{stdin: stdin, stdout: out, stderr: stderr}
	root := newRootCommand(a)
	args, err := withTwoDashes(root, args)
	if err != nil {
		return report(a, root, err)
	}
	root.SetArgs(args)
	cmd, err := root.ExecuteContextC(ctx)
	var interrupt *interruptError
	if cause := context.Cause(ctx); err != nil && errors.As(cause, &interrupt) && !errors.As(err, &interrupt) {
		err = fmt.Errorf("%w: %w", cause, err)
	}
	a.progress.stop()
	return report(a, cmd, out.end(err))
}

// app is what commands share: the streams and the global flags.
type app struct {
	stdin          io.Reader
	stdout, stderr io.Writer
	global         globalFlags
	log            logs
	progress       *progress
	configured     bool   // it works by a configuration: hints name keys
	config         string // the configuration that said where the snapshots are, if one did
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
  backupd restore --repo REPO latest --from /etc/systemd/system/etcd.service --dry-run
  backupd restore --repo REPO latest --from /etc/systemd/system/etcd.service
FILE of --from is whatever starts etcd on this host; or give --name m1 --data-dir DIR.
Several hosts? "backupd plan" decides once for all, and "backupd runbook" writes every
step down. One member of a healthy cluster is dead: "backupd member replace". The quorum
is lost and there is no backup: "backupd rescue".

REPO is file:///path or s3://bucket/prefix. On a host with the daemon's configuration,
` + packagedPath + `, leave --repo out: commands on snapshots find the repository in
it, and with --config FILE in another one. The flags of etcdctl and etcdutl mean here what
they mean there, and ETCDCTL_* variables work. Flags that say where something is and how to
reach it can also be given as BACKUPD_<FLAG> in the environment. What a command does is said
on its command line only.`,
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
		newRunCommand(a), newCheckCommand(a), newConfigCommand(a), newStatusCommand(a), newPauseCommand(a),
		newResumeCommand(a))
	addGroup(root, "repo", "Backups in a repository:",
		newInitCommand(a), newBackupCommand(a), newImportCommand(a), newListCommand(a), newShowCommand(a),
		newCompanionsCommand(a), newVerifyCommand(a), newCopyCommand(a),
		newPinCommand(a), newUnpinCommand(a), newPruneCommand(a), newRmCommand(a), newTimelineCommand(a))
	addGroup(root, "recovery", "A cluster, or a member of it, that was lost:",
		newPlanCommand(a), newRunbookCommand(a), newRestoreCommand(a), newVerifyClusterCommand(a), newMemberCommand(a),
		newRescueCommand(a))
	addGroup(root, "file", "Snapshots as plain files, like etcdctl and etcdutl:", newSnapshotCommand(a))
	root.AddCommand(newDemoCommand(a), newVersionCommand(a))
	addTopics(root)
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
	warnings, err := applyEnvironment(cmd, os.LookupEnv)
	if err != nil {
		return err
	}
	if err := checkShort(cmd); err != nil {
		return err
	}
	if slices.ContainsFunc(cmd.Flags().Args(), isBlank) {
		return &usageError{errors.New("an argument is empty")}
	}
	if err := a.global.check(cmd); err != nil {
		return err
	}
	limitMemory(cmd)
	a.progress = newProgress(a.stderr)
	a.log, err = newLogs(a.progress, a.global.logFormat, a.global.logLevel)
	if err != nil {
		return &usageError{err}
	}
	for _, text := range warnings {
		a.log.slog.Warn(text)
	}
	if slices.Contains(givesWay, cmd.Name()) {
		if err := priority.Lower(); err != nil {
			a.log.slog.Warn("this process does not give way to others on its host", "err", err)
		}
	}
	for _, name := range a.global.ignored(cmd) {
		a.log.slog.Warn("flag has no effect here", "flag", "--"+name)
	}
	if cmd.Annotations[configured] != "" {
		return a.configure(cmd)
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

// givesWay lists the commands that read whole databases and that nobody waits for in an
// emergency. etcd may run on the same host.
var givesWay = []string{"backup", "copy", "import", "run", "save", "verify"}

// arguments says how many arguments a command takes, as a usage error.
func arguments(n int, what string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) != n {
			return &usageError{fmt.Errorf("%s expects %s", cmd.CommandPath(), what)}
		}
		return nil
	}
}
