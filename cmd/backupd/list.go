package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/codec"
	"github.com/etcd-backupd/backupd/internal/snapshot"
	"github.com/etcd-backupd/backupd/internal/storage"
)

func newListCommand(a *app) *cobra.Command {
	var o listOptions
	cmd := &cobra.Command{
		Use:   "list --repo REPO [--cluster NAME]",
		Short: "List the snapshots of a repository, the newest first",
		Long: `List the snapshots of a repository, the newest first, of one cluster or of all. What is
listed is what the names of objects tell, so that thousands take a moment; with
--long each manifest is read, which tells the plain size, and which of them are damaged.

` + exitHelp,
		Example: "  backupd list --repo s3://backups/etcd\n  backupd list --repo file:///var/backups/etcd --cluster prod --long -w json",
		Args:    arguments(0, "no argument"),
		RunE:    func(cmd *cobra.Command, _ []string) error { return runList(cmd.Context(), a, o) },
	}
	o.repo.register(cmd)
	cmd.Flags().BoolVar(&o.long, "long", false, "read every manifest")
	return cmd
}

type listOptions struct {
	repo repoFlags
	long bool
}

// States of a listed snapshot.
const (
	stateVerified   = "verified"
	stateSuspect    = "suspect"
	stateDamaged    = "damaged"    // by the names of its objects
	stateUnreadable = "unreadable" // its manifest
)

// listed is one row of a listing.
type listed struct {
	Cluster     string            `json:"cluster"`
	ID          backup.SnapshotID `json:"id"`
	Time        time.Time         `json:"time"`
	Revision    backup.Revision   `json:"revision"`
	State       string            `json:"state"`
	Reason      string            `json:"reason,omitempty"`
	PlainBytes  *int64            `json:"plainBytes,omitempty"` // only with --long
	StoredBytes int64             `json:"storedBytes"`
	Encoding    string            `json:"encoding"`
	Pinned      bool              `json:"pinned"`

	entry snapshot.Entry
	err   error // of a damaged or unreadable one
}

func newListed(i snapshot.Item) listed {
	row := listed{
		Cluster: i.Cluster, ID: i.ID, Time: i.ID.Time(), Revision: i.ID.Revision(), State: stateVerified,
		StoredBytes: i.StoredBytes(), Encoding: i.Encoding(), Pinned: i.Pinned, entry: i.Entry,
	}
	switch {
	case i.DataMissing():
		row.damaged(snapshot.DataMissing, i.Key(), "its data object is not there")
	case i.Clash:
		row.damaged(snapshot.ManifestDamaged, i.Key(), "another manifest names the same data")
	case i.Suspect:
		row.State = stateSuspect
	}
	return row
}

func (r *listed) damaged(kind snapshot.DefectKind, key, reason string) {
	r.State, r.Reason = stateDamaged, reason
	r.err = &snapshot.DefectError{Kind: kind, Key: key, Err: backup.Corruptf("%s", reason)}
}

// addManifest adds what the manifest tells.
func (r *listed) addManifest(l snapshot.Listed) {
	if l.Err != nil {
		r.State, r.Reason, r.err = stateUnreadable, l.Err.Error(), l.Err
		return
	}
	r.PlainBytes = &l.Manifest.Plain.Bytes
	if r.State == stateSuspect {
		r.Reason = l.Manifest.Suspect[0]
	}
}

func runList(ctx context.Context, a *app, o listOptions) error {
	store, err := o.repo.openExisting(ctx, a)
	if err != nil {
		return err
	}
	out := a.newListPrinter(o.long)
	var damaged []error
	for rows, err := range listRows(ctx, store, o) {
		if err != nil {
			return errors.Join(err, out.flush()) // what is cut is not made to look whole
		}
		for _, r := range rows {
			if err := out.row(r); err != nil {
				return err
			}
			if r.err != nil {
				damaged = append(damaged, r.err)
			}
		}
	}
	return errors.Join(append([]error{out.end()}, damaged...)...)
}

// listAtOnce is how many rows are aligned with each other, and how many manifests
// are held.
const listAtOnce = 500

// listRows yields rows, a few hundred at once: cluster by cluster, the newest
// first. A store lists the oldest first, so the rows of one cluster are held:
// some hundred bytes each.
func listRows(ctx context.Context, store storage.Store, o listOptions) iter.Seq2[[]listed, error] {
	return func(yield func([]listed, error) bool) {
		var rows []listed
		emit := func() bool {
			slices.Reverse(rows)
			for part := range slices.Chunk(rows, listAtOnce) {
				if o.long {
					part = withManifests(ctx, store, part)
				}
				if !yield(part, context.Cause(ctx)) {
					return false
				}
			}
			rows = rows[:0]
			return true
		}
		for i, err := range snapshot.Catalog(ctx, store, o.repo.cluster) {
			if err != nil {
				yield(nil, err)
				return
			}
			if !i.Manifest {
				continue
			}
			if len(rows) > 0 && rows[0].Cluster != i.Cluster && !emit() {
				return
			}
			rows = append(rows, newListed(i))
		}
		if emit() && ctx.Err() != nil {
			yield(nil, context.Cause(ctx))
		}
	}
}

// withManifests adds what the manifests tell. One that went away while the list
// was read is not listed.
func withManifests(ctx context.Context, store storage.Store, rows []listed) []listed {
	var entries []snapshot.Entry
	for _, r := range rows {
		entries = append(entries, r.entry)
	}
	n := 0
	for l := range snapshot.List(ctx, store, entries) {
		rows[n].addManifest(l)
		n++
	}
	return slices.DeleteFunc(rows, func(r listed) bool { return r.State == stateUnreadable && isNotFound(r.err) })
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
	pin, err := snapshot.FindPin(ctx, store, e)
	if err != nil {
		return err
	}
	fmt.Fprintf(a.stdout, "snapshot %s (%s ago)\n", m.ID, age(m.ID.Time(), time.Now()))
	if pin != nil {
		fmt.Fprintf(a.stdout, "  PINNED: %s\n", pinText(pin))
	}
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
