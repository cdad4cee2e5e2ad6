package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/codec"
	"github.com/etcd-backupd/backupd/internal/snapshot"
	"github.com/etcd-backupd/backupd/internal/storage"
)

func newListCommand(a *app) *cobra.Command {
	var repo repoFlags
	cmd := &cobra.Command{
		Use:   "list --repo REPO [--cluster NAME]",
		Short: "List the snapshots of a repository, the newest first",
		Long: `List the snapshots of a repository, the newest first, of one cluster or of all.

` + exitHelp,
		Example: "  backupd list --repo s3://backups/etcd\n  backupd list --repo file:///var/backups/etcd --cluster prod -w json",
		Args:    arguments(0, "no argument"),
		RunE:    func(cmd *cobra.Command, _ []string) error { return runList(cmd.Context(), a, repo) },
	}
	repo.register(cmd)
	return cmd
}

// listed is one row of a listing.
type listed struct {
	Cluster     string            `json:"cluster"`
	ID          backup.SnapshotID `json:"id"`
	Time        time.Time         `json:"time"`
	Revision    backup.Revision   `json:"revision"`
	State       string            `json:"state"` // verified, suspect or unreadable
	Reason      string            `json:"reason,omitempty"`
	PlainBytes  int64             `json:"plainBytes"`
	StoredBytes int64             `json:"storedBytes"`
	Encoding    string            `json:"encoding"`
}

func newListed(l snapshot.Listed) listed {
	row := listed{Cluster: l.Cluster, ID: l.ID, Time: l.ID.Time(), Revision: l.ID.Revision()}
	if l.Err != nil {
		row.State, row.Reason = "unreadable", l.Err.Error()
		return row
	}
	m := l.Manifest
	row.State, row.PlainBytes, row.StoredBytes, row.Encoding = "verified", m.Plain.Bytes, m.Stored.Bytes, m.Encoding.String()
	if !m.Verified() {
		row.State, row.Reason = "suspect", m.Suspect[0]
	}
	return row
}

func runList(ctx context.Context, a *app, repo repoFlags) error {
	store, err := repo.openExisting(ctx, a)
	if err != nil {
		return err
	}
	entries, err := snapshot.Entries(ctx, store, repo.cluster)
	if err != nil {
		return err
	}
	var rows []listed
	var unreadable []error
	for l := range snapshot.List(ctx, store, entries) {
		// One that went away while the list was read is not listed.
		if isNotFound(l.Err) {
			continue
		}
		rows = append(rows, newListed(l))
		if l.Err != nil {
			unreadable = append(unreadable, l.Err)
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return errors.Join(append([]error{printList(a, rows)}, unreadable...)...)
}

func printList(a *app, rows []listed) error {
	if a.global.writeOut == "json" {
		list := struct {
			Snapshots []listed `json:"snapshots"`
		}{append([]listed{}, rows...)}
		return printJSON(a.stdout, kindSnapshotList, list)
	}
	header := []string{"CLUSTER", "ID", "AGE", "REVISION", "SIZE", "STORED", "ENCODING", "STATE"}
	var cells [][]string
	now := time.Now()
	for _, r := range rows {
		cells = append(cells, []string{r.Cluster, string(r.ID), age(r.Time, now), r.Revision.String(),
			humanize.IBytes(uint64(r.PlainBytes)), humanize.IBytes(uint64(r.StoredBytes)), r.Encoding, r.State})
	}
	return a.printRows(header, cells)
}

func newShowCommand(a *app) *cobra.Command {
	var repo repoFlags
	var identity identityFlag
	cmd := &cobra.Command{
		Use:   "show --repo REPO [ID|latest]",
		Short: "Show everything known of one snapshot",
		Long: `Show everything known of one snapshot, and whether it can be decrypted here.

` + exitHelp,
		Example:           "  backupd show --repo s3://backups/etcd latest\n  backupd show --repo s3://backups/etcd 20261120T101500Z -w json",
		Args:              optionalID,
		ValidArgsFunction: completeIDs(a, &repo),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runShow(cmd.Context(), a, repo, identity, args)
		},
	}
	repo.register(cmd)
	identity.register(cmd)
	return cmd
}

func optionalID(cmd *cobra.Command, args []string) error {
	if len(args) > 1 {
		return &usageError{fmt.Errorf("%s expects at most one snapshot: an id, the beginning of one, or latest", cmd.CommandPath())}
	}
	return nil
}

func runShow(ctx context.Context, a *app, repo repoFlags, identity identityFlag, args []string) error {
	ids, err := identity.read()
	if err != nil {
		return err
	}
	store, err := repo.openExisting(ctx, a)
	if err != nil {
		return err
	}
	e, err := repo.resolve(ctx, store, args)
	if err != nil {
		return err
	}
	m, err := snapshot.Open(ctx, store, e)
	if err != nil {
		return err
	}
	if a.global.writeOut == "json" {
		return printJSON(a.stdout, kindSnapshot, m)
	}
	if a.global.writeOut == "fields" {
		raw, err := json.MarshalIndent(m, "", "  ")
		if err != nil {
			return fmt.Errorf("encode manifest: %w", err)
		}
		fmt.Fprintln(a.stdout, string(raw))
		return nil
	}
	fmt.Fprintf(a.stdout, "snapshot %s (%s ago)\n", m.ID, age(m.ID.Time(), time.Now()))
	for _, why := range m.Suspect {
		fmt.Fprintf(a.stdout, "  SUSPECT: %s\n", why)
	}
	if err := printFacts(a.stdout, m); err != nil {
		return err
	}
	t := newColumns(a.stdout)
	for _, mem := range m.Members {
		t.row("  member", mem.Name, mem.ID.String(), fmt.Sprint(mem.PeerURLs), learnerNote(mem))
	}
	t.row("  data", m.DataKey())
	t.row("  sha256", m.Stored.SHA256.String())
	if m.Encoding.Encryption != "" {
		t.row("  decrypts", decrypts(ctx, store, m, ids))
	}
	return t.flush()
}

func learnerNote(m backup.Member) string {
	if m.Learner {
		return "learner"
	}
	return ""
}

// decrypts tells whether the identities at hand open the snapshot, by its first
// bytes.
func decrypts(ctx context.Context, store storage.Store, m *backup.Manifest, ids codec.Identities) string {
	if len(ids) == 0 {
		return "not tried: give --identity"
	}
	r, err := snapshot.OpenData(ctx, store, m, ids, nil)
	if err != nil {
		return "no: " + err.Error()
	}
	defer r.Close()
	if _, err := r.Read(make([]byte, 1)); err != nil {
		return "no: " + err.Error()
	}
	return "yes"
}
