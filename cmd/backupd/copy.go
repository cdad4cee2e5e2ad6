package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/copies"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/repository/choice"
)

type copyOptions struct {
	from, to copyPlace
	config   string
	cluster  string
	since    sinceFlag
	id       string
	also     []string
	rate     byteSize
	dryRun   bool
}

func newCopyCommand(a *app) *cobra.Command {
	o := copyOptions{from: copyPlace{side: "from"}, to: copyPlace{side: "to"}}
	cmd := &cobra.Command{
		Use:   "copy --from REPO --to REPO",
		Short: "Copy snapshots into another repository",
		Long: `Copy snapshots into another repository: for a second copy at another place, for a disk
that goes into a safe, for moving house. REPO is an address or the name of a repository in
the daemon's configuration. --from is only read, and --to must be a repository of its own,
which 'backupd init' makes.

The stored bytes are copied as they are: no key is needed. Their length and SHA-256 are
compared on the way and read back, and the manifest is copied last, byte for byte. What is
missing is what the two listings say, and the newest comes first. So an interrupted copy is
simply run again. Nothing at --to is overwritten. Companion files, pins, and statements of
which history is the present one go along; when a snapshot was verified does not, because
that is about the bytes at the other place.

Left out and reported are snapshots that are not verified (exit code 3; --also copies them,
too), those of which one place has other bytes than the other (4), and those that --to has
removed on purpose (0; --id copies one all the same). If the cluster of that name at --to
is another one, or has a history that is not of this one, the copy is refused (6).

Each place has its own settings: those of 'backupd help s3' with from- or to- before them,
such as --to-s3-endpoint and --from-s3-credentials-file. Of the environment only the AWS
SDK's own variables count, for both.

` + exitHelp,
		Example: `  backupd copy --from s3://backups/etcd --to file:///mnt/safe --dry-run
  backupd copy --from main --to offsite --since 168h --limit-rate 20MiB
  backupd copy --from file:///var/backups --to s3://far/etcd --to-s3-credentials-file far.txt --cluster prod`,
		Args: arguments(0, "no argument"),
		RunE: func(cmd *cobra.Command, _ []string) error { return runCopy(cmd, a, o) },
	}
	o.register(cmd)
	return cmd
}

func (o *copyOptions) register(cmd *cobra.Command) {
	f := cmd.Flags()
	o.from.register(cmd, "repository that is read: file:///path, s3://bucket/prefix or a name in the configuration")
	o.to.register(cmd, "repository that gets the copies, in the same forms")
	f.StringVar(&o.config, "config", "", "the daemon's configuration, which knows the names of repositories (default: "+
		packagedPath+", if it is there)")
	f.StringVar(&o.cluster, "cluster", "",
		"name of the one cluster that is copied (default: all, whatever BACKUPD_CLUSTER says)")
	f.Var(&o.since, "since", "copy what was begun since then: 2026-11-20, 2026-11-20T10:15:00Z, or 168h ago")
	f.StringVar(&o.id, "id", "", "copy one snapshot: its id, the beginning of one, or latest")
	f.StringSliceVar(&o.also, "also", nil, "copy also snapshots in this state: unconfirmed, suspect, damaged (repeatable)")
	f.Var(&o.rate, "limit-rate",
		"bound of what is read and read back, in bytes per second, such as 20MiB (default: no bound)")
	f.BoolVar(&o.dryRun, "dry-run", false, "show what would be copied, and how much it is")
	mustRegister(cmd.RegisterFlagCompletionFunc("also", fixed(copyStates...)))
	mustRegister(cmd.RegisterFlagCompletionFunc("cluster", completeCopied(o)))
}

// copyStates are the states that --also knows.
var copyStates = []string{string(backup.Unconfirmed), string(backup.Suspect), string(backup.Damaged)}

// sinceFlag is a flag for a moment in the past.
type sinceFlag struct {
	at   time.Time
	text string
}

func (s *sinceFlag) String() string { return s.text }
func (s *sinceFlag) Type() string   { return "time" }

func (s *sinceFlag) Set(text string) error {
	s.text = text
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if at, err := time.Parse(layout, text); err == nil {
			s.at = at
			return nil
		}
	}
	ago, err := time.ParseDuration(text)
	if err != nil || ago <= 0 {
		return errors.New("want a day such as 2026-11-20, a time such as 2026-11-20T10:15:00Z, or an age such as 168h")
	}
	s.at = time.Now().Add(-ago)
	return nil
}

func (o *copyOptions) check() error {
	for _, state := range o.also {
		if !slices.Contains(copyStates, state) {
			return &usageError{fmt.Errorf("--also %q: want unconfirmed, suspect or damaged", state)}
		}
	}
	if o.id != "" && !o.since.at.IsZero() {
		return &usageError{errors.New("--id and --since exclude each other: one names the snapshot")}
	}
	if o.cluster != "" {
		if err := backup.CheckClusterName(o.cluster); err != nil {
			return &usageError{fmt.Errorf("--cluster: %w", err)}
		}
	}
	return nil
}

func runCopy(cmd *cobra.Command, a *app, o copyOptions) error {
	ctx := cmd.Context()
	o.cluster = givenCluster(cmd, o.cluster)
	if err := o.check(); err != nil {
		return err
	}
	from, to, err := o.open(cmd, a)
	if err != nil {
		return err
	}
	names, only, err := o.choose(cmd, from)
	if err != nil {
		return err
	}
	var out []copied
	for _, name := range names {
		c := &copies.Copier{
			From: from.Cluster(name), To: to.Cluster(name), Since: o.since.at, Only: only, Rate: int64(o.rate),
			Progress: a.progress.report, Log: a.log.slog.With("cluster", name),
		}
		for _, state := range o.also {
			c.Also = append(c.Also, backup.State(state))
		}
		done := copyCluster(ctx, c, o.dryRun)
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		out = append(out, done)
	}
	a.progress.stop()
	if err := printCopied(a, &o, out, from, to); err != nil {
		return err
	}
	return copyError(out)
}

// open opens both places. Nothing can be written to the first.
func (o *copyOptions) open(cmd *cobra.Command, a *app) (from, to *repository.Repository, err error) {
	for _, p := range []*copyPlace{&o.from, &o.to} {
		if err := p.find(cmd, a); err != nil {
			return nil, nil, err
		}
	}
	if from, err = o.from.open(cmd.Context(), a, openToRead); err != nil {
		return nil, nil, err
	}
	if o.to.id == from.ID() { // opening it may make that marker there
		return nil, nil, o.oneRepository(copies.Apart(from, from))
	}
	how := openToWrite // which makes a marker only by an id, and else refuses, as the run itself would
	if o.dryRun && o.to.id != "" {
		how = openToRead
	}
	if to, err = o.to.open(cmd.Context(), a, how); err != nil {
		return nil, nil, explainMarker(err)
	}
	return from, to, o.oneRepository(copies.Apart(from, to))
}

func (o *copyOptions) oneRepository(err error) error {
	return backup.WithHint(err, "--from is %s, --to is %s", o.from.url, o.to.url)
}

// explainMarker says what to do about a destination without a whole marker. Its snapshots may be
// copies, which name another repository than this one: nobody should make the marker of that here.
func explainMarker(err error) error {
	if !errors.As(err, new(*repository.UnmarkedError)) && !errors.Is(err, backup.ErrCorrupt) {
		return err
	}
	return backup.WithHint(err, "find out what has removed or changed it, and put back %s from a copy of --to; without "+
		"one copy into a new place, because the manifests of copies name the repository that they are copies of, and not "+
		"this one", backup.MarkerKey)
}

// choose returns the clusters that are copied, and the one snapshot if only one is.
func (o *copyOptions) choose(cmd *cobra.Command, from *repository.Repository) ([]string, backup.SnapshotID, error) {
	place := repoFlags{repo: o.from.url, cluster: o.cluster, options: o.from.options}
	if o.id != "" {
		in, item, err := choice.Find(cmd.Context(), from, o.cluster, o.id)
		var several *choice.Error
		if errors.As(err, &several) {
			return nil, "", withHints(err, copiesOf(cmd, several.Others)...)
		}
		if err != nil {
			return nil, "", place.explain(cmd, from, err)
		}
		return []string{in.Name()}, item.ID, nil
	}
	if o.cluster != "" {
		return []string{o.cluster}, "", place.missing(cmd.Context(), from)
	}
	names, err := from.Clusters(cmd.Context())
	if err == nil && len(names) == 0 {
		err = &repository.NotFoundError{Reason: "there is nothing to copy: the repository holds no snapshot"}
	}
	return names, "", err
}

// copiesOf are the running command for each snapshot that can be meant.
func copiesOf(cmd *cobra.Command, items []repository.Item) []string {
	var out []string
	for n, i := range items {
		if n == choicesShown {
			return append(out, fmt.Sprintf("and %d more", len(items)-n))
		}
		out = append(out, fmt.Sprintf("to copy revision %d of %s of cluster %s: %s", i.ID.Revision(),
			i.ID.Time().Format(time.RFC3339), i.Cluster,
			commandWith(cmd, nil, "--id="+string(i.ID), "--cluster="+i.Cluster)))
	}
	return out
}

// copied is the result for one cluster.
type copied struct {
	plan   *copies.Plan
	result *copies.Result // nil in a dry run
	err    error
}

func copyCluster(ctx context.Context, c *copies.Copier, dryRun bool) copied {
	plan, err := c.Plan(ctx, time.Now())
	if err != nil {
		return copied{plan: &copies.Plan{Cluster: c.From.Name()}, err: err}
	}
	if dryRun {
		return copied{plan: plan}
	}
	result, err := c.Run(ctx, plan)
	return copied{plan, result, err}
}

// leftOut are the snapshots that were, or would be, left out.
func (c *copied) leftOut() []copies.LeftOut {
	if c.result != nil {
		return c.result.LeftOut
	}
	return c.plan.LeftOut
}

// copyError says what of all was not copied, each with its exit code: what one side has
// removed on purpose is no failure.
func copyError(all []copied) error {
	var failed []error
	causes, states, disputed := map[copies.Cause]int{}, map[backup.State]bool{}, 0
	for n := range all {
		if all[n].err != nil {
			failed = append(failed, ofCluster(all[n].plan.Cluster, all[n].err))
		}
		for _, l := range all[n].leftOut() {
			causes[l.Cause]++
			if l.Cause == copies.ByState {
				states[l.Item.State()] = true
			}
		}
		disputed += len(all[n].plan.Disputed)
	}
	if len(failed) == len(all) {
		return errors.Join(failed...)
	}
	if n := causes[copies.Damaged] + causes[copies.Differs]; n > 0 {
		if len(failed) > 0 { // in words: a refusal by its type would say that nothing was written
			failed = []error{errors.New(errors.Join(failed...).Error())}
		}
		return errors.Join(append(failed, backup.WithHint(backup.Corruptf(
			"%s damaged at one of the two places, or not the same at both", count(n, "snapshot is", "snapshots are")),
			"the answer says why, for each; 'backupd verify' at each place finds what is damaged, and marks it; nothing was "+
				"overwritten"))...)
	}
	var out []string
	if n := causes[copies.ByState]; n > 0 {
		out = append(out, count(n, "snapshot is", "snapshots are")+" not verified and left out")
	}
	if n := causes[copies.Waiting] + causes[copies.Withheld]; n > 0 {
		out = append(out, count(n, "snapshot", "snapshots")+" could not be copied yet")
	}
	if disputed > 0 {
		out = append(out, count(disputed, "acceptance", "acceptances")+" of a history differs")
	}
	if len(out) > 0 {
		failed = append(failed, backup.WithHint(errors.New(strings.Join(out, ", ")), "%s", alsoHint(states)))
	}
	if len(failed) == 0 {
		return nil
	}
	return &partialError{errors.Join(failed...)}
}

// alsoHint says how snapshots in these states are copied, too.
func alsoHint(states map[backup.State]bool) string {
	var also []string
	for _, state := range copyStates {
		if states[backup.State(state)] {
			also = append(also, "--also="+state)
		}
	}
	if len(also) == 0 {
		return "the answer says why, for each"
	}
	hint := strings.Join(also, " ") + " copies what is not verified, too"
	if states[backup.Damaged] {
		hint += "; what is damaged only where the stored bytes are still those of the manifest"
	}
	return hint
}
