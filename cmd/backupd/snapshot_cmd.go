package main

import "github.com/spf13/cobra"

func newSnapshotCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "snapshot <subcommand>",
		Short: "Save, inspect and restore snapshots as plain files",
		Long: `Save, inspect and restore snapshots as plain files: drop-in for
"etcdctl snapshot save" and "etcdutl snapshot status / restore", with the same
flags and the same lines of output.`,
	}
	cmd.AddCommand(newSnapshotSaveCommand(a), newSnapshotStatusCommand(a), newSnapshotRestoreCommand(a))
	return cmd
}
