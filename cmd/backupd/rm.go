package main

import (
	"fmt"
	"slices"

	"github.com/spf13/cobra"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/repository/choice"
	"github.com/etcd-backupd/backupd/internal/repository/prune"
)

type rmOptions struct {
	repo        repoFlags
	dryRun      bool
	forcePinned bool
}

func newRmCommand(a *app) *cobra.Command {
	var o rmOptions
	cmd := &cobra.Command{
		Use:   "rm --repo REPO ID",
		Short: "Delete one snapshot",
		Long: `Delete one snapshot: first its manifest, with which it exists, then its data and its
marks. If the command is interrupted, run it again with the full id. A pinned snapshot
is refused. ID is a full id, as 'backupd list' shows it: what "latest" or the beginning of
an id means changes with every backup.

` + exitHelp,
		Example:           "  backupd rm --repo s3://backups/etcd 20261120T101500Z-r123456-k7q2xd",
		Args:              oneID,
		ValidArgsFunction: withoutLatest(completeIDs(a, &o.repo)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runRm(cmd, a, o, args[0])
		},
	}
	o.repo.register(cmd)
	cmd.Flags().BoolVar(&o.dryRun, "dry-run", false, "show what would be deleted")
	cmd.Flags().BoolVar(&o.forcePinned, "force-pinned", false, "delete a pinned snapshot, and its pin")
	annotate(cmd.Flags(), "force-pinned", flagOnly)
	return cmd
}

// withoutLatest offers ids alone.
func withoutLatest(complete cobra.CompletionFunc) cobra.CompletionFunc {
	return func(cmd *cobra.Command, args []string, begun string) ([]string, cobra.ShellCompDirective) {
		offered, directive := complete(cmd, args, begun)
		return slices.DeleteFunc(offered, func(id string) bool { return id == choice.Latest }), directive
	}
}

func runRm(cmd *cobra.Command, a *app, o rmOptions, arg string) error {
	ctx := cmd.Context()
	repo, err := o.repo.openExisting(ctx, a)
	if err != nil {
		return err
	}
	in, item, err := o.repo.findRest(cmd, repo, arg)
	if err != nil {
		return err
	}
	pin, err := in.Marks().Find(ctx, item.ID, backup.MarkPin)
	if err != nil {
		return err
	}
	if pin != nil && !o.forcePinned {
		reason := fmt.Sprintf("snapshot %s is pinned: %s", item.ID, pin.Reason)
		return &backup.RefusedError{Reason: reason, Override: "--force-pinned"}
	}
	if o.dryRun {
		fmt.Fprintf(a.stdout, "Would delete snapshot %s of cluster %s\n", item.ID, in.Name())
		return nil
	}
	if err := prune.Delete(ctx, in, item.ID, whoami()); err != nil {
		return fmt.Errorf("delete %s: %w", item.ID, err)
	}
	fmt.Fprintf(a.stdout, "Deleted snapshot %s of cluster %s\n", item.ID, in.Name())
	return nil
}
