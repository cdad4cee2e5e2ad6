package main

import (
	"errors"
	"fmt"
	"os"
	"os/user"
	"time"

	"github.com/spf13/cobra"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/repository"
)

func newPinCommand(a *app) *cobra.Command {
	var repo repoFlags
	var reason string
	cmd := &cobra.Command{
		Use:   "pin [--repo REPO] ID|latest --reason TEXT",
		Short: "Keep a snapshot, whatever retention says",
		Long: `Keep a snapshot, whatever retention says, until 'backupd unpin'. The pin is a mark in
the repository; it records the reason, the time and the user.

` + latestHelp + exitHelp,
		Example:           `  backupd pin --repo s3://backups/etcd latest --reason "before the upgrade to 3.7"`,
		Args:              oneReference,
		ValidArgsFunction: completeIDs(&repo),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runPin(cmd, a, repo, args, reason)
		},
	}
	repo.register(cmd)
	registerConfigured(cmd)
	repo.registerTimeline(cmd, latestOfTimeline)
	cmd.Flags().StringVar(&reason, "reason", "", "why the snapshot must stay (required)")
	return cmd
}

func runPin(cmd *cobra.Command, a *app, repo repoFlags, args []string, reason string) error {
	if reason == "" {
		return &usageError{errors.New("no reason: say with --reason why the snapshot must stay")}
	}
	ctx := cmd.Context()
	r, err := repo.openToWrite(ctx, a)
	if err != nil {
		return err
	}
	in, item, err := repo.find(cmd, r, args[0])
	if err != nil {
		return err
	}
	err = in.Marks().Pin(ctx, item, reason, whoami())
	if errors.As(err, new(*repository.MarkedError)) {
		return backup.WithHint(err, "to give another reason: backupd unpin %s, then pin it again", item.ID)
	}
	if err != nil {
		return fmt.Errorf("pin %s: %w", item.ID, err)
	}
	done := pinSet{Cluster: in.Name(), ID: item.ID, Pinned: true, PinReason: reason}
	if printed, err := a.document(kindPin, done); printed {
		return err
	}
	fmt.Fprintf(a.stdout, "Pinned snapshot %s of cluster %s\n", item.ID, in.Name())
	return nil
}

// pinSet is the answer for machines of pin and of unpin.
type pinSet struct {
	Cluster   string            `json:"cluster"`
	ID        backup.SnapshotID `json:"id"`
	Pinned    bool              `json:"pinned"`
	PinReason string            `json:"pinReason,omitempty"`
}

// pinText says why a snapshot is pinned, and by whom.
func pinText(p *backup.Mark) string {
	if p.At.IsZero() {
		return p.Reason
	}
	return fmt.Sprintf("%s (%s, %s)", p.Reason, p.By, p.At.UTC().Format(time.RFC3339))
}

// whoami names the user and the machine, as far as they are known.
func whoami() string {
	name := "unknown"
	if u, err := user.Current(); err == nil {
		name = u.Username
	}
	if host, err := os.Hostname(); err == nil {
		name += "@" + host
	}
	return name
}

func newUnpinCommand(a *app) *cobra.Command {
	var repo repoFlags
	cmd := &cobra.Command{
		Use:   "unpin [--repo REPO] ID",
		Short: "Remove the pin of a snapshot",
		Long: `Remove the pin of a snapshot: the next prune may remove the snapshot. ID is a full id,
as 'backupd list' shows it.

` + exitHelp,
		Example:           "  backupd unpin --repo s3://backups/etcd 20261120T101500Z-r123456-k7q2xd",
		Args:              oneID,
		ValidArgsFunction: withoutLatest(completeIDs(&repo)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runUnpin(cmd, a, repo, args)
		},
	}
	repo.register(cmd)
	registerConfigured(cmd)
	return cmd
}

func runUnpin(cmd *cobra.Command, a *app, repo repoFlags, args []string) error {
	ctx := cmd.Context()
	r, err := repo.openToWrite(ctx, a)
	if err != nil {
		return err
	}
	in, item, err := repo.findRest(cmd, r, args[0])
	if err != nil {
		return err
	}
	if err := in.Marks().Remove(ctx, item.ID, backup.MarkPin); err != nil {
		return fmt.Errorf("unpin: %w", err)
	}
	if printed, err := a.document(kindPin, pinSet{Cluster: in.Name(), ID: item.ID}); printed {
		return err
	}
	fmt.Fprintf(a.stdout, "Unpinned snapshot %s of cluster %s\n", item.ID, in.Name())
	return nil
}
