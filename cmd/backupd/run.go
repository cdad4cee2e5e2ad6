package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/etcd-backupd/backupd/internal/config"
	"github.com/etcd-backupd/backupd/internal/config/watch"
	"github.com/etcd-backupd/backupd/internal/daemon"
	"github.com/etcd-backupd/backupd/internal/members/from"
)

func newRunCommand(a *app) *cobra.Command {
	var path string
	cmd := &cobra.Command{
		Use:   "run --config FILE",
		Short: "Guard one or many clusters: the daemon",
		Long: `Guard one or many clusters by the schedules of a configuration file, until a signal
stops it.

SIGHUP reads the configuration again; a changed file is also noticed without it.
SIGUSR1 backs up every cluster now. SIGTERM and SIGINT stop the daemon; running uploads
are broken off, stay in the spool and are stored after the next start. A second one ends
it at once.

` + exitHelp,
		Example: `  backupd config example > /etc/backupd/backupd.yaml
  backupd config check /etc/backupd/backupd.yaml
  backupd run --config /etc/backupd/backupd.yaml`,
		Args: arguments(0, "no argument"),
		RunE: func(cmd *cobra.Command, _ []string) error { return runDaemon(cmd, a, path) },
	}
	registerConfig(cmd, &path)
	return cmd
}

func registerConfig(cmd *cobra.Command, path *string) {
	cmd.Flags().StringVar(path, "config", "", "configuration file (backupd config example prints one)")
}

func runDaemon(cmd *cobra.Command, a *app, path string) error {
	// Before anything else: until then these signals end the process.
	signals := make(chan os.Signal, 8)
	signal.Reset(syscall.SIGHUP) // it interrupts other commands
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGUSR1)
	defer signal.Stop(signals)
	options, err := a.daemonOptions(cmd, path)
	if err != nil {
		return err
	}
	lines := newRepeats(options.Log.Handler())
	defer lines.all.end()
	options.Log = slog.New(lines)
	d, err := daemon.New(cmd.Context(), options)
	if err != nil {
		return err
	}
	ctx := cmd.Context()
	go func() {
		for {
			select {
			case <-ctx.Done():
				return
			case sig := <-signals:
				if sig == syscall.SIGHUP {
					d.Reload(ctx)
				} else {
					d.Trigger()
				}
			}
		}
	}()
	err = d.Run(ctx)
	var interrupt *interruptError
	if err == nil && errors.As(context.Cause(ctx), &interrupt) {
		a.log.slog.Info("stopped", "signal", interrupt.sig.String())
	}
	return err
}

// daemonOptions reads the configuration file of a daemon.
func (a *app) daemonOptions(cmd *cobra.Command, path string) (o daemon.Options, err error) {
	if path == "" {
		return o, notTold(cmd, errNoConfiguration)
	}
	a.configured = true
	watcher := watch.New(path)
	conf, err := config.Load(path)
	if err != nil {
		return o, err
	}
	if problems := conf.CheckOwnFiles(); len(problems) > 0 {
		return o, &config.Error{Problems: problems}
	}
	if err := a.logAs(cmd, conf.Daemon.Log); err != nil {
		return o, err
	}
	v := version()
	return daemon.Options{
		Config: conf, Path: path, Watcher: watcher, Hint: configuredHint, Log: a.log.slog,
		Trace:   from.Trace,
		Version: daemon.Version{Tool: v.String(), Version: v.Version, Revision: v.Commit, Go: v.Go},
	}, nil
}

// logAs sets form and level of log lines as the configuration says, unless a flag
// says otherwise.
func (a *app) logAs(cmd *cobra.Command, conf config.Log) error {
	format, level := a.global.logFormat, a.global.logLevel
	if f := cmd.Flags().Lookup("log-format"); !f.Changed {
		format = conf.Format
	}
	if f := cmd.Flags().Lookup("log-level"); !f.Changed {
		level = conf.Level
	}
	var err error
	if a.log, err = newLogs(a.progress, format, level); err != nil {
		return &usageError{err}
	}
	return nil
}
