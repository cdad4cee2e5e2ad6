package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/config/strict"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/repository/pause"
)

// namesCluster marks a command whose argument is the name of a cluster.
const namesCluster = "cluster"

func newPauseCommand(a *app) *cobra.Command {
	var repo repoFlags
	var until, reason string
	cmd := &cobra.Command{
		Use:   "pause [--repo REPO] CLUSTER --until TIME --reason TEXT",
		Short: "Let no scheduled backup of a cluster run until a time",
		Long: `Let no scheduled backup and no defragmentation of a cluster run until a time, or until
'backupd resume': for maintenance of it. TIME is a duration from now, such as 4h or 2d, or a
time as in 2026-11-30T18:00:00Z; a pause lasts at most 30 days. It is a mark in the
repository, and records the reason, the time and the user.

A daemon obeys it at its next slot, and shows it within a quarter of an hour ('backupd
status', backupd_cluster_paused_until_timestamp_seconds). 'backupd backup --once --config'
takes no snapshot of the cluster and exits with 0. The alerts that backups are too old or
fail are silent meanwhile, and fire again afterwards; those of damage are not silent. Stored
snapshots are verified as ever, those that wait in the spool are stored, and the daemon
removes none. A backup by hand is taken all the same.

When the pause ends, the daemon backs up within a quarter of an hour. A cluster that is paused
already stays as it is (exit code 1).

` + exitHelp,
		Example: `  backupd pause prod --until 4h --reason "etcd is upgraded to 3.6"
  backupd pause prod --repo s3://backups/etcd --until 2026-11-30T18:00:00Z --reason "the network is rebuilt"`,
		Args:              oneCluster,
		ValidArgsFunction: completeCluster(&repo),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runPause(cmd, a, repo, args[0], until, reason)
		},
	}
	registerPauseFlags(cmd, &repo)
	cmd.Flags().StringVar(&until, "until", "", "how long, such as 4h or 2d, or the time of its end (required)")
	cmd.Flags().StringVar(&reason, "reason", "", "why the cluster is paused (required)")
	return cmd
}

func registerPauseFlags(cmd *cobra.Command, repo *repoFlags) {
	repo.registerPlace(cmd)
	registerConfigured(cmd)
	cmd.Annotations[namesCluster] = "yes"
}

// oneCluster takes the one argument that names a cluster.
func oneCluster(cmd *cobra.Command, args []string) error {
	if len(args) != 1 {
		return &usageError{fmt.Errorf("%s expects the name of one cluster", cmd.CommandPath())}
	}
	if err := backup.CheckClusterName(args[0]); err != nil {
		return &usageError{err}
	}
	return nil
}

// parseEnd returns the end of a pause that begins now.
func parseEnd(text string, now time.Time) (time.Time, error) {
	end, err := time.Parse(time.RFC3339, text)
	if err != nil {
		d, derr := strict.ParseDuration(text)
		if derr != nil {
			return time.Time{}, fmt.Errorf("--until %q: want a duration such as 4h or 2d, or a time with its zone, "+
				"such as 2026-11-30T18:00:00Z", text)
		}
		end = now.Add(d)
	}
	if !now.Before(end) {
		return time.Time{}, fmt.Errorf("--until: %s is past: it is %s now", end.UTC().Format(time.RFC3339),
			now.UTC().Format(time.RFC3339))
	}
	// As it is stored: whole seconds.
	if err := pause.CheckLength(now.Truncate(time.Second), end.Truncate(time.Second)); err != nil {
		return time.Time{}, fmt.Errorf("--until: %w", err)
	}
	return end, nil
}

func runPause(cmd *cobra.Command, a *app, repo repoFlags, cluster, until, reason string) error {
	now := time.Now()
	switch {
	case until == "":
		return &usageError{errors.New("no end: say with --until how long, such as 4h, or until when")}
	case reason == "":
		return &usageError{errors.New("no reason: say with --reason why the cluster is paused")}
	}
	end, err := parseEnd(until, now)
	if err == nil && backup.CheckReason(reason) != nil {
		err = fmt.Errorf("--reason: %w", backup.CheckReason(reason))
	}
	if err != nil {
		return &usageError{err}
	}
	in, err := openNamed(cmd.Context(), a, &repo, cluster)
	if err != nil {
		return err
	}
	p, err := pause.Set(cmd.Context(), in, pause.Pause{Until: end, Reason: reason, By: whoami()}, now)
	if errors.As(err, new(*pause.PausedError)) {
		return withHints(err, "for another end, first: "+resumeCommand(cmd, cluster), "then: "+commandWith(cmd, nil, cluster))
	}
	if err != nil {
		return err
	}
	done := pauseSet{Cluster: cluster, Paused: true, Until: p.Until, Reason: p.Reason, At: p.At, By: p.By}
	if printed, err := a.document(kindPause, done); printed {
		return err
	}
	fmt.Fprintf(a.stdout, "Paused cluster %s until %s (%s from now)\n", cluster, p.Until.Format(time.RFC3339),
		p.Until.Sub(now).Round(time.Second))
	fmt.Fprintln(a.stdout, "No scheduled backup and no defragmentation of it begins until then; a running one goes on")
	return nil
}

// openNamed opens a repository to write to it, and returns the part of a cluster that it must
// hold: nobody may believe that another one is paused.
func openNamed(ctx context.Context, a *app, r *repoFlags, cluster string) (*repository.Cluster, error) {
	in, err := r.openToWrite(ctx, a)
	if err != nil {
		return nil, err
	}
	r.cluster = cluster
	if err := r.missing(ctx, in); err != nil {
		return nil, err
	}
	return in.Cluster(cluster), nil
}

// resumeCommand is the command that ends what this one has begun.
func resumeCommand(cmd *cobra.Command, cluster string) string {
	return strings.Replace(commandWith(cmd, []string{"until", "reason"}, cluster), " pause ", " resume ", 1)
}

// pauseSet is the answer for machines of pause and of resume.
type pauseSet struct {
	Cluster string    `json:"cluster"`
	Paused  bool      `json:"paused"`
	Until   time.Time `json:"until,omitzero"`
	Reason  string    `json:"reason,omitempty"`
	At      time.Time `json:"at,omitzero"`
	By      string    `json:"by,omitempty"`
}

func newResumeCommand(a *app) *cobra.Command {
	var repo repoFlags
	cmd := &cobra.Command{
		Use:   "resume [--repo REPO] CLUSTER",
		Short: "End the pause of a cluster",
		Long: `End the pause of a cluster: its schedules go on. A daemon backs it up when it has looked at
the repository, within a quarter of an hour. Marks of pauses that are damaged, or from the
future, are removed, too.

` + exitHelp,
		Example:           "  backupd resume prod",
		Args:              oneCluster,
		ValidArgsFunction: completeCluster(&repo),
		RunE:              func(cmd *cobra.Command, args []string) error { return runResume(cmd, a, repo, args[0]) },
	}
	registerPauseFlags(cmd, &repo)
	return cmd
}

func runResume(cmd *cobra.Command, a *app, repo repoFlags, cluster string) error {
	now := time.Now()
	in, err := openNamed(cmd.Context(), a, &repo, cluster)
	if err != nil {
		return err
	}
	ended, err := pause.End(cmd.Context(), in, now)
	if err != nil {
		return err
	}
	if printed, err := a.document(kindPause, pauseSet{Cluster: cluster}); printed {
		return err
	}
	if p := ended.At(now); p != nil {
		fmt.Fprintf(a.stdout, "Resumed cluster %s, which was %s\n"+
			"A daemon backs it up when it looks at the repository the next time, within 15 minutes\n", cluster, p)
	} else {
		fmt.Fprintf(a.stdout, "Cluster %s was not paused; removed what counted for nothing\n", cluster)
	}
	if ended.Ignored != nil {
		a.log.slog.Warn("marks that counted for nothing were removed", "err", ended.Ignored)
	}
	return nil
}

// notePause says that the schedules of a cluster rest while a backup is taken by hand. That
// nobody knows it is no reason to take none.
func notePause(ctx context.Context, a *app, in *repository.Cluster) {
	p, err := pause.Now(ctx, in, time.Now())
	if err != nil {
		a.log.slog.Warn("whether the cluster is paused is not known", "err", err)
	}
	if p != nil {
		a.log.slog.Warn("the cluster is paused, and this backup is taken all the same", "until",
			p.Until.Format(time.RFC3339), "by", p.By, "reason", p.Reason)
	}
}
