package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/snapshot"
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
		Long: `Delete one snapshot: its manifest first, so that it stops existing before it stops
being whole, then its data. A pinned snapshot is refused.

` + exitHelp,
		Example:           "  backupd rm --repo s3://backups/etcd 20261120T101500Z-r123456-k7q2xd",
		Args:              arguments(1, "one snapshot id"),
		ValidArgsFunction: completeIDs(a, &o.repo),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runRm(cmd.Context(), a, o, args[0])
		},
	}
	o.repo.register(cmd)
	cmd.Flags().BoolVar(&o.dryRun, "dry-run", false, "say what would be deleted")
	cmd.Flags().BoolVar(&o.forcePinned, "force-pinned", false, "delete it although it is pinned, and the pin too")
	annotate(cmd.Flags(), "force-pinned", flagOnly)
	return cmd
}

func runRm(ctx context.Context, a *app, o rmOptions, arg string) error {
	store, err := o.repo.openExisting(ctx, a)
	if err != nil {
		return err
	}
	e, err := snapshot.Resolve(ctx, store, o.repo.cluster, arg)
	if isNotFound(err) {
		// What an interrupted deletion left is found by the full id.
		id, perr := backup.ParseSnapshotID(arg)
		if perr != nil || o.repo.cluster == "" {
			return err
		}
		e = snapshot.Entry{Cluster: o.repo.cluster, ID: id}
	} else if err != nil {
		return err
	}
	pin, err := snapshot.FindPin(ctx, store, e)
	if err != nil {
		return err
	}
	if pin != nil && !o.forcePinned {
		return &backup.RefusedError{Reason: fmt.Sprintf("snapshot %s is pinned: %s", e.ID, pin.Reason), Override: "--force-pinned"}
	}
	if o.dryRun {
		fmt.Fprintf(a.stdout, "Would delete snapshot %s of cluster %s\n", e.ID, e.Cluster)
		return nil
	}
	if err := snapshot.Delete(ctx, store, e); err != nil {
		return fmt.Errorf("delete %s: %w", e.ID, err)
	}
	// The pin goes last: what an interrupted deletion leaves is still held by it.
	if pin != nil {
		if err := snapshot.Unpin(ctx, store, e); err != nil && !isNotFound(err) {
			return fmt.Errorf("delete %s: %w", e.ID, err)
		}
	}
	fmt.Fprintf(a.stdout, "Deleted snapshot %s of cluster %s\n", e.ID, e.Cluster)
	return nil
}
