package main

import (
	"context"
	"errors"
	"iter"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/repository/choice"
)

func newListCommand(a *app) *cobra.Command {
	var o listOptions
	cmd := &cobra.Command{
		Use:   "list [--repo REPO] [--cluster NAME]",
		Short: "List the snapshots of a repository, the newest first",
		Long: `List the snapshots of a repository, of one cluster or of all, the newest first.

The list is made from the names and sizes of objects, so thousands of snapshots take a
moment. --long also reads every manifest: it adds the size of the database and finds
damaged manifests.

STATE is verified, unconfirmed (no voting member was compared with it when it was
taken), suspect (the content was in doubt when it was taken) or damaged (the data is
missing, or a verification found damage). "from the future" means that a clock was ahead
when the snapshot was begun; "its time is wrong" that the time contradicts the order of
the history, which no clock decides. Where a cluster has several histories (TIMELINE),
notes say which has ended, and why another began. The exit code is 4 if a snapshot is
damaged.

` + exitHelp,
		Example: `  backupd list --repo s3://backups/etcd
  backupd list --repo file:///var/backups/etcd --cluster prod --long -w json`,
		Args: arguments(0, "no argument"),
		RunE: func(cmd *cobra.Command, _ []string) error { return runList(cmd.Context(), a, o) },
	}
	o.repo.register(cmd)
	registerConfigured(cmd)
	o.repo.registerTimeline(cmd, "list the snapshots of this history only")
	cmd.Flags().BoolVar(&o.long, "long", false, "read every manifest")
	return cmd
}

type listOptions struct {
	repo repoFlags
	long bool
}

// listed is one row of a listing, with the error of a snapshot that is damaged
// or whose manifest cannot be read.
type listed struct {
	backup.Row
	err error
}

func newListed(i repository.Item, now time.Time) listed {
	row := listed{Row: i.Row(now)}
	var defect *backup.DefectError
	if errors.As(i.Defect(), &defect) {
		row.err = defect
	}
	return row
}

func runList(ctx context.Context, a *app, o listOptions) error {
	repo, err := o.repo.openToRead(ctx, a)
	if err != nil {
		return err
	}
	clusters := []string{o.repo.cluster}
	if o.repo.cluster == "" {
		if clusters, err = repo.Clusters(ctx); err != nil {
			return err
		}
	}
	out := a.newListPrinter(o.long)
	count := 0
	var damaged []error
	var several []string // clusters with more than one history
	for _, name := range clusters {
		timelines := map[string]bool{}
		for rows, err := range listRows(ctx, repo.Cluster(name), o.long) {
			if err != nil {
				return errors.Join(err, out.flush()) // a listing that was cut must not look whole
			}
			for _, r := range rows {
				timelines[r.Timeline] = true
			}
			rows = slices.DeleteFunc(rows, func(r listed) bool {
				return o.repo.timeline != "" && r.Timeline != o.repo.timeline
			})
			count += len(rows)
			for _, r := range rows {
				if err := out.row(r); err != nil {
					return err
				}
				if r.err != nil {
					damaged = append(damaged, r.err)
				}
			}
		}
		if len(timelines) > 1 {
			several = append(several, name)
		}
	}
	if count == 0 {
		if err := o.repo.missing(ctx, repo); err != nil {
			return err
		}
		if o.repo.timeline != "" {
			return &repository.NotFoundError{Reason: "there is no snapshot of timeline " + o.repo.timeline}
		}
	}
	if err := out.end(); err != nil {
		return err
	}
	for _, name := range several {
		if err := noteTimelines(ctx, a, repo.Cluster(name)); err != nil {
			return err
		}
	}
	return errors.Join(damaged...)
}

// listAtOnce is how many rows are aligned with each other, and how many manifests
// are held.
const listAtOnce = 500

// listRows yields the rows of one cluster, a few hundred at once, the newest
// first. A store lists the oldest first, so the items are held: some hundred bytes
// each.
func listRows(ctx context.Context, in *repository.Cluster, long bool) iter.Seq2[[]listed, error] {
	return func(yield func([]listed, error) bool) {
		var items []repository.Item
		for i, err := range in.Items(ctx) {
			if err != nil {
				yield(nil, err)
				return
			}
			if i.Exists {
				items = append(items, i)
			}
		}
		slices.Reverse(items)
		now, rows := time.Now(), shortRows
		untimely := choice.Untimely(items, now)
		if long {
			rows = longRows
		}
		for part := range slices.Chunk(items, listAtOnce) {
			out := rows(ctx, in, part, now)
			for n := range out {
				out[n].Untimely = untimely[out[n].ID]
			}
			if !yield(out, context.Cause(ctx)) {
				return
			}
		}
		if ctx.Err() != nil {
			yield(nil, context.Cause(ctx))
		}
	}
}

// shortRows makes rows of what the names of objects tell.
func shortRows(_ context.Context, _ *repository.Cluster, items []repository.Item, now time.Time) []listed {
	var out []listed
	for _, i := range items {
		out = append(out, newListed(i, now))
	}
	return out
}

// longRows makes rows of what the manifests say, too. One that went away while
// the list was read is not listed.
func longRows(ctx context.Context, in *repository.Cluster, items []repository.Item, now time.Time) []listed {
	var out []listed
	for m := range in.Manifests(ctx, items) {
		row := newListed(m.Item, now)
		row.Row = m.Row(now)
		if m.Err != nil {
			row.err = m.Err
		}
		if m.Err == nil || !isNotFound(m.Err) {
			out = append(out, row)
		}
	}
	return out
}
