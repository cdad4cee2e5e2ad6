package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kballard/go-shellquote"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/repository/acceptance"
)

func newTimelineCommand(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "timeline",
		Short: "Show and accept the histories of a cluster",
		Long: `Show and accept the histories of a cluster.

A timeline is one unforked history. A cluster whose data was lost, restored or replaced
begins a new one, even with the same cluster id. Until somebody accepts the new one,
backups exit with 4, retention removes nothing of the older ones, and "latest" is
refused: nobody may take an empty cluster for the one that was lost.

` + exitHelp,
		Args: arguments(0, "a subcommand"),
	}
	cmd.AddCommand(newTimelineListCommand(a), newTimelineAcceptCommand(a))
	return cmd
}

func newTimelineListCommand(a *app) *cobra.Command {
	var repo repoFlags
	cmd := &cobra.Command{
		Use:   "list [--repo REPO] [--cluster NAME]",
		Short: "List the histories of a cluster, the newest first",
		Long: `List the histories of a cluster, the newest first.

STATE is present (it goes on), ended (an accepted one has replaced it) or in question
(nobody knows whether it or another is the present one).

` + exitHelp,
		Example: "  backupd timeline list --repo s3://backups/etcd --cluster prod",
		Args:    arguments(0, "no argument"),
		RunE:    func(cmd *cobra.Command, _ []string) error { return runTimelineList(cmd, a, repo) },
	}
	repo.register(cmd)
	registerConfigured(cmd)
	return cmd
}

// timelineRow is one history in a listing.
type timelineRow struct {
	Timeline  string            `json:"timeline"`
	State     string            `json:"state"`
	Snapshots int               `json:"count"`
	First     backup.SnapshotID `json:"first"`
	Last      backup.SnapshotID `json:"last"`
	Revision  backup.Revision   `json:"revision"`
	Keys      *int64            `json:"keys,omitempty"`
	ClusterID string            `json:"clusterID,omitempty"`
	Members   []backup.Member   `json:"members,omitempty"`
	Reason    string            `json:"reason,omitempty"`
	Accepted  *stated           `json:"accepted,omitempty"`
}

// stated says why somebody stated something, and when.
type stated struct {
	Reason string    `json:"reason"`
	At     time.Time `json:"at"`
	By     string    `json:"by,omitempty"`
}

func (s *stated) String() string {
	if s == nil {
		return "no"
	}
	return fmt.Sprintf("%s (%s, %s)", s.Reason, s.By, s.At.UTC().Format(time.RFC3339))
}

type timelineList struct {
	Cluster   string        `json:"cluster"`
	Timelines []timelineRow `json:"timelines"`
}

func timelineRows(all repository.Timelines) []timelineRow {
	_, question := all.Present()
	live := all.Live()
	var rows []timelineRow
	for _, t := range all {
		row := timelineRow{
			Timeline: t.Name, State: "present", Snapshots: t.Count, First: t.First.ID, Last: t.Head.ID,
			Revision: t.Head.ID.Revision(),
		}
		switch {
		case live.Find(t.Name) == nil:
			row.State = "ended"
		case question != nil:
			row.State = "in question"
		}
		if m := t.Manifest; m != nil {
			row.Keys, row.Members = &m.Keys, m.Members
			if m.ClusterID != 0 {
				row.ClusterID = m.ClusterID.String()
			}
			if m.Origin != nil {
				row.Reason = m.Origin.Reason
			}
		}
		if t.Accepted != nil {
			row.Accepted = &stated{t.Accepted.Reason, t.Accepted.At, t.Accepted.By}
		}
		rows = append(rows, row)
	}
	return rows
}

func runTimelineList(cmd *cobra.Command, a *app, repo repoFlags) error {
	in, err := repo.openCluster(cmd, a, repo.openToRead)
	if err != nil {
		return err
	}
	all, err := readTimelines(cmd.Context(), in)
	if err != nil {
		return repo.explain(cmd, in.Repository(), err)
	}
	rows := timelineRows(all)
	printed, err := a.document(kindTimelines, timelineList{repo.cluster, rows})
	if !printed {
		err = printTimelines(a, rows)
	}
	if err != nil {
		return err
	}
	_, err = all.Present()
	return explainHistory(cmd, err)
}

// noteTimelines says on standard error which histories of a cluster have ended, and why
// others began.
func noteTimelines(ctx context.Context, a *app, in *repository.Cluster) error {
	all, err := repository.ReadTimelines(ctx, in)
	if err != nil {
		return err
	}
	for _, r := range timelineRows(all) {
		note := fmt.Sprintf("timeline %s of cluster %s is %s; its last snapshot is %s",
			r.Timeline, in.Name(), r.State, r.Last)
		if r.Reason != "" {
			note += "; it began because: " + r.Reason
		}
		fmt.Fprintln(a.stderr, "Note: "+note)
	}
	return nil
}

func printTimelines(a *app, rows []timelineRow) error {
	var cells [][]string
	for _, r := range rows {
		keys := "unknown"
		if r.Keys != nil {
			keys = strconv.FormatInt(*r.Keys, 10)
		}
		cells = append(cells, []string{
			r.Timeline, r.State, strconv.Itoa(r.Snapshots), string(r.First), string(r.Last), keys,
			cmp.Or(r.ClusterID, "unknown"), membersOf(r.Members), cmp.Or(r.Reason, "the first"), r.Accepted.String(),
		})
	}
	return a.printRows([]string{"TIMELINE", "STATE", "SNAPSHOTS", "FIRST", "LAST", "KEYS", "CLUSTER ID", "MEMBERS",
		"BEGAN BECAUSE",
		"ACCEPTED"}, cells)
}

// membersOf names members by their names and addresses.
func membersOf(members []backup.Member) string {
	var out []string
	for _, m := range members {
		out = append(out, cmp.Or(m.Name, m.ID.String())+" "+cmp.Or(strings.Join(m.ClientURLs, " "), "(no address)"))
	}
	return strings.Join(out, ", ")
}

func newTimelineAcceptCommand(a *app) *cobra.Command {
	var repo repoFlags
	var clusterID, reason string
	cmd := &cobra.Command{
		Use:   "accept [--repo REPO] [--cluster NAME] TIMELINE --reason TEXT",
		Short: "State that a history is the present one of the cluster",
		Long: `State that a history is the present one of the cluster. All others end with the
snapshots that they have now: retention applies to them again, and they can be restored
by their ids.

With --cluster-id instead of a timeline the first history of a cluster with that id is
accepted before its first snapshot exists. 'backupd restore' does so by itself where it
may write to the repository.

` + exitHelp,
		Example: `  backupd timeline accept --repo s3://backups/etcd --cluster prod t2-k7q2xd \
    --reason "restored after the disk failure of 3 May"`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return runTimelineAccept(cmd, a, repo, args, clusterID, reason)
		},
	}
	repo.register(cmd)
	registerConfigured(cmd)
	cmd.Flags().StringVar(&clusterID, "cluster-id", "", "id of the cluster whose first history is accepted")
	cmd.Flags().StringVar(&reason, "reason", "", "why it is the present history (required)")
	return cmd
}

func runTimelineAccept(
	cmd *cobra.Command, a *app, repo repoFlags, args []string, clusterID, reason string,
) error {
	switch {
	case len(args) > 1 || (len(args) == 0) == (clusterID == ""):
		return &usageError{errors.New("timeline accept expects one timeline, or --cluster-id")}
	case reason == "":
		return &usageError{errors.New("no reason: say with --reason why it is the present history")}
	}
	if err := backup.CheckReason(reason); err != nil {
		return &usageError{fmt.Errorf("--reason: %w", err)}
	}
	in, err := repo.openCluster(cmd, a, repo.openToWrite)
	if err != nil {
		return err
	}
	if clusterID != "" {
		return repo.explain(cmd, in.Repository(), acceptCluster(cmd.Context(), a, in, clusterID, reason))
	}
	if err := backup.CheckTimeline(args[0]); err != nil {
		return &usageError{err}
	}
	ended, err := acceptance.Accept(cmd.Context(), in, args[0], reason, whoami())
	if err != nil {
		return repo.explain(cmd, in.Repository(), err)
	}
	done := acceptedTimeline{Cluster: in.Name(), Timeline: args[0], Ended: append([]string{}, ended...)}
	if printed, err := a.document(kindAccepted, done); printed {
		return err
	}
	fmt.Fprintf(a.stdout, "Accepted timeline %s as the present history of cluster %s\n"+
		"A daemon notices it when it looks at the repository the next time, or backs up\n", args[0], in.Name())
	for _, name := range ended {
		fmt.Fprintf(a.stdout, "Timeline %s has ended\n", name)
	}
	return nil
}

// acceptedTimeline is the answer for machines: the history that was accepted, or the id of
// the cluster whose first one is, and those that have ended by it.
type acceptedTimeline struct {
	Cluster   string          `json:"cluster"`
	Timeline  string          `json:"timeline,omitempty"`
	ClusterID backup.MemberID `json:"clusterID,omitzero"`
	Ended     []string        `json:"ended"`
}

// acceptCluster accepts the first history of a cluster with that id, before it has a
// snapshot.
func acceptCluster(ctx context.Context, a *app, in *repository.Cluster, clusterID, reason string) error {
	var id backup.MemberID
	if err := id.UnmarshalText([]byte(clusterID)); err != nil || id == 0 {
		return &usageError{fmt.Errorf("--cluster-id %q: want up to 16 hexadecimal digits", clusterID)}
	}
	if _, err := readTimelines(ctx, in); err != nil {
		return err
	}
	if err := acceptance.Expect(ctx, in, id, nil, reason, whoami()); err != nil {
		return err
	}
	done := acceptedTimeline{Cluster: in.Name(), ClusterID: id, Ended: []string{}}
	if printed, err := a.document(kindAccepted, done); printed {
		return err
	}
	fmt.Fprintf(a.stdout, "The first history of a cluster with the id %s is accepted\n", id)
	return nil
}

// readTimelines reads the histories of a cluster that must have snapshots.
func readTimelines(ctx context.Context, in *repository.Cluster) (repository.Timelines, error) {
	all, err := repository.ReadTimelines(ctx, in)
	if err == nil && len(all) == 0 {
		err = &repository.NotFoundError{Reason: "the repository holds no snapshot of cluster " + in.Name()}
	}
	return all, err
}

// opener opens the repository that flags name: to read, or to write.
type opener func(context.Context, *app) (*repository.Repository, error)

// openCluster opens the part of a repository that --cluster names.
func (r *repoFlags) openCluster(cmd *cobra.Command, a *app, open opener) (*repository.Cluster, error) {
	if r.cluster == "" {
		return nil, &usageError{errors.New("no cluster: give --cluster (or BACKUPD_CLUSTER)")}
	}
	repo, err := open(cmd.Context(), a)
	if err != nil {
		return nil, err
	}
	return repo.Cluster(r.cluster), nil
}

// explainHistory adds the commands that settle which history is the present one.
func explainHistory(cmd *cobra.Command, err error) error {
	var history *repository.HistoryError
	if !errors.As(err, &history) {
		return err
	}
	if history.Both {
		lines := []string{"give one of the clusters another name; its snapshots stay and can be restored by their ids. " +
			"Then accept the history that keeps the name:", acceptCommand(cmd, history.Newest.Name)}
		for _, t := range history.Others {
			lines = append(lines, acceptCommand(cmd, t.Name))
		}
		return backup.WithHint(err, "%s", strings.Join(lines, "\n"))
	}
	lines := []string{"if the new history is wanted: " + acceptCommand(cmd, history.Newest.Name)}
	for _, t := range history.Others {
		if t.Manifest != nil { // else nobody can restore it now
			lines = append(lines, "if the data of "+t.Name+" was lost: "+restoreCommand(cmd, string(t.Head.ID)))
		}
	}
	return backup.WithHint(err, "%s", strings.Join(lines, "\n"))
}

// acceptCommand returns the command that accepts a timeline in the repository of the
// running command.
func acceptCommand(cmd *cobra.Command, args ...string) string {
	return commandIn(cmd, append([]string{"timeline", "accept"}, args...)...) + " --reason TEXT"
}

// restoreCommand returns the command that restores a snapshot of the repository of the
// running command.
func restoreCommand(cmd *cobra.Command, id string) string {
	return commandIn(cmd, "restore", id) + " --name NAME --data-dir DIR"
}

// commandIn returns a command for the repository of the running command.
func commandIn(cmd *cobra.Command, args ...string) string {
	words := append([]string{"backupd"}, args...)
	var repo repoFlags
	known := &cobra.Command{}
	repo.register(known)
	idle := idleFlags(cmd)
	cmd.Flags().Visit(func(f *pflag.Flag) {
		if f.Changed && known.Flags().Lookup(f.Name) != nil && !slices.Contains(args, "--"+f.Name) &&
			!slices.Contains(idle, f.Name) {
			words = append(words, "--"+f.Name+"="+f.Value.String())
		}
	})
	return shellquote.Join(words...)
}
