package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/codec"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/server"
	"github.com/etcd-backupd/backupd/internal/snapshot"
)

func newShowCommand(a *app) *cobra.Command {
	var repo repoFlags
	var identity identityFlag
	cmd := &cobra.Command{
		Use:   "show [--repo REPO] ID|latest",
		Short: "Show everything known of one snapshot",
		Long: `Show everything known of one snapshot: why it is pinned, damaged, suspect or unconfirmed,
what its manifest says, and whether --identity decrypts it.

` + latestHelp + exitHelp,
		Example: `  backupd show --repo s3://backups/etcd latest
  backupd show --repo s3://backups/etcd 20261120T101500Z -w json`,
		Args:              oneReference,
		ValidArgsFunction: completeIDs(&repo),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runShow(cmd, a, repo, identity, args)
		},
	}
	repo.register(cmd)
	registerConfigured(cmd)
	repo.registerTimeline(cmd, latestOfTimeline)
	identity.register(cmd)
	return cmd
}

// shown is the answer for machines: that of the API, and whether the identities decrypt.
type shown struct {
	server.SnapshotDetail
	Decrypts string `json:"decrypts,omitempty"` // yes, or no and why
}

func newShown(row backup.Row, m *backup.Manifest) shown {
	return shown{SnapshotDetail: server.SnapshotDetail{Row: row, Manifest: m}}
}

func runShow(cmd *cobra.Command, a *app, repo repoFlags, identity identityFlag, args []string) error {
	ctx := cmd.Context()
	ids, err := identity.read(a)
	if err != nil {
		return err
	}
	r, err := repo.openToRead(ctx, a)
	if err != nil {
		return err
	}
	in, item, err := repo.find(cmd, r, args[0])
	if err != nil {
		return err
	}
	m, err := in.Manifest(ctx, item)
	if err != nil {
		return explainDamage(cmd, in, item, err)
	}
	pin, err := in.Marks().Find(ctx, item.ID, backup.MarkPin)
	if err != nil {
		return err
	}
	if a.forMachines() {
		doc := newShown((&repository.Read{Item: item, Manifest: m}).Row(time.Now()), m)
		if doc.Pinned = pin != nil; pin != nil { // else it was unpinned meanwhile
			doc.PinReason = pin.Reason
		}
		doc.ReadAt, doc.ReadStoredOnly = repository.LastRead(&item)
		if m.Encoding.Encryption != "" && len(ids) > 0 {
			doc.Decrypts = decrypts(ctx, in, m, ids)
		}
		_, err := a.document(kindSnapshot, doc)
		return err
	}
	fmt.Fprintf(a.stdout, "snapshot %s (%s)\n", m.ID, when(item, time.Now()))
	if defect := item.Defect(); defect != nil {
		fmt.Fprintf(a.stdout, "  DAMAGED: %v\n", defect)
	}
	if pin != nil {
		fmt.Fprintf(a.stdout, "  PINNED: %s\n", pinText(pin))
	}
	if text := rereadText(item); text != "" {
		fmt.Fprintf(a.stdout, "  %s\n", text)
	}
	printReasons(a.stdout, m)
	if err := printFacts(a.stdout, m); err != nil {
		return err
	}
	if m.Origin != nil {
		fmt.Fprintf(a.stdout, "  the timeline began after snapshot %s of %s: %s\n",
			m.Origin.Snapshot, m.Origin.Timeline, m.Origin.Reason)
	}
	t := newColumns(a.stdout)
	for _, mem := range m.Members {
		t.row("  member", mem.Name, mem.ID.String(), fmt.Sprint(mem.PeerURLs), learnerNote(mem))
	}
	t.row("  data", m.DataKey())
	t.row("  sha256", m.Stored.SHA256.String())
	if m.Encoding.Encryption != "" {
		t.row("  decrypts", decrypts(ctx, in, m, ids))
	}
	return errors.Join(t.flush(), printCompanions(a.stdout, m.Companions))
}

// when says how long ago a snapshot was begun, or how far in the future it is.
func when(i repository.Item, now time.Time) string {
	if i.Future(now) {
		return "from the future, " + ageOf(i.ID, now) + ": a clock was ahead"
	}
	return ageOf(i.ID, now) + " ago"
}

// rereadText says when the snapshot was last verified, or nothing.
func rereadText(i repository.Item) string {
	at, storedOnly := repository.LastRead(&i)
	if at.IsZero() {
		return ""
	}
	text := "was read and found whole at " + at.Format(time.RFC3339)
	if storedOnly {
		text += ": the stored bytes only"
	}
	return text
}

func learnerNote(m backup.Member) string {
	if m.Learner {
		return "learner"
	}
	return ""
}

// decrypts says whether the given identities decrypt the snapshot. It tries the
// first bytes.
func decrypts(ctx context.Context, in *repository.Cluster, m *backup.Manifest, ids codec.Identities) string {
	if len(ids) == 0 {
		return "not tried: give --identity"
	}
	r, err := snapshot.Open(ctx, in, m, ids, nil)
	if err != nil {
		return "no: " + err.Error()
	}
	defer r.Close()
	if _, err := r.Read(make([]byte, 1)); err != nil {
		return "no: " + err.Error()
	}
	return "yes"
}
