package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/cluster"
	"github.com/etcd-backupd/backupd/internal/snapshot"
)

func newSnapshotSaveCommand(a *app) *cobra.Command {
	var allowNearQuota bool
	cmd := &cobra.Command{
		Use:   "save <filename>",
		Short: "Save a snapshot of an etcd member to a file",
		Long: `Save a snapshot of an etcd member to a file, as "etcdctl snapshot save" does.

With several endpoints the best member is asked, and another one if that fails. The
received bytes are compared with the SHA-256 that etcd sends. The file appears under
its name only when it is whole and on disk. "-" writes to standard output: use the
output only if the exit code is 0.

Like etcdctl it keeps no reserve on the file system of the file. An etcd on the same one
ends if it gets full. A warning comes if less than the larger of 15% and 2GiB would stay
free; the file is written all the same.

` + exitHelp,
		Example: `  backupd snapshot save /backup/etcd.db
  backupd snapshot save --endpoints=10.0.0.1:2379,10.0.0.2:2379 /backup/etcd.db
  backupd --user=root --password=secret snapshot save - | zstd > etcd.db.zst`,
		Args:        arguments(1, "one argument <filename>"),
		Annotations: needsEtcd,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			// As in etcdctl, the flag bounds the whole command only if it is given.
			if cmd.Flags().Changed("command-timeout") {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, a.global.commandTimeout)
				defer cancel()
			}
			return runSnapshotSave(ctx, a, args[0], allowNearQuota)
		},
	}
	registerStream(cmd, a, &allowNearQuota)
	return cmd
}

func runSnapshotSave(ctx context.Context, a *app, path string, allowNearQuota bool) error {
	if path == "-" {
		if err := takesData(a.stdout); err != nil {
			return err
		}
	}
	source, err := a.connect()
	if err != nil {
		return err
	}
	defer source.Close()
	s := &snapshot.Saver{
		Source:   source,
		Progress: func(done, total int64) { a.progress.report(backup.StageReceive, done, total) },
		Log:      a.log.slog,
		Chosen:   func(survey *cluster.Survey) { snapshot.LogSurvey(a.log.slog, survey) },

		AllowNearQuota: allowNearQuota,
	}
	if path == "-" {
		saved, err := s.Stream(ctx, a.stdout)
		if err != nil {
			return err
		}
		a.log.slog.Info("snapshot streamed", "endpoint", saved.Endpoint, "bytes", saved.Bytes)
		return nil
	}
	saved, err := s.Save(ctx, path)
	if err != nil {
		return err
	}
	a.progress.stop()
	fmt.Fprintf(a.stdout, "Snapshot saved at %s\n", path)
	if saved.Version != "" {
		fmt.Fprintf(a.stdout, "Server version %s\n", saved.Version)
	}
	return nil
}
