package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/etcd-backupd/backupd/internal/backup"
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
		Use:   "rm [--repo REPO] ID",
		Short: "Delete one snapshot",
		Long: `Delete one snapshot: first its manifest, with which it exists, then its data and its
marks. If the command is interrupted, run it again with the full id. A pinned snapshot
is refused. ID is a full id, as 'backupd list' shows it: what "latest" or the beginning of
an id means changes with every backup.

` + exitHelp,
		Example:           "  backupd rm --repo s3://backups/etcd 20261120T101500Z-r123456-k7q2xd",
		Args:              oneID,
		ValidArgsFunction: withoutLatest(completeIDs(&o.repo)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runRm(cmd, a, o, args[0])
		},
	}
	o.repo.register(cmd)
	registerConfigured(cmd)
	cmd.Flags().BoolVar(&o.dryRun, "dry-run", false, "show what would be deleted")
	cmd.Flags().BoolVar(&o.forcePinned, "force-pinned", false, "delete a pinned snapshot, and its pin")
	return cmd
}

func runRm(cmd *cobra.Command, a *app, o rmOptions, arg string) error {
	ctx := cmd.Context()
	open := opener(o.repo.openToWrite)
	if o.dryRun {
		open = o.repo.openToRead
	}
	repo, err := open(ctx, a)
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
		return printRemoval(a, removal{Cluster: in.Name(), ID: item.ID, DryRun: true})
	}
	remove := prune.DeleteUnpinned
	if o.forcePinned {
		remove = prune.Delete
	}
	err = remove(ctx, in, item.ID, whoami())
	var pinned *prune.PinnedError
	if errors.As(err, &pinned) { // a moment ago
		return &backup.RefusedError{Reason: pinned.Error(), Override: "--force-pinned"}
	}
	if err != nil {
		return fmt.Errorf("delete %s: %w", item.ID, err)
	}
	return printRemoval(a, removal{Cluster: in.Name(), ID: item.ID})
}

// removal is the answer for machines.
type removal struct {
	Cluster string            `json:"cluster"`
	ID      backup.SnapshotID `json:"id"`
	DryRun  bool              `json:"dryRun"`
}

func printRemoval(a *app, r removal) error {
	if printed, err := a.document(kindRemoval, r); printed {
		return err
	}
	verb := map[bool]string{true: "Would delete", false: "Deleted"}[r.DryRun]
	_, err := fmt.Fprintf(a.stdout, "%s snapshot %s of cluster %s\n", verb, r.ID, r.Cluster)
	return err
}
