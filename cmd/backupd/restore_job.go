package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/kballard/go-shellquote"
	"github.com/spf13/cobra"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/repository/choice"
	"github.com/etcd-backupd/backupd/internal/restore"
	"github.com/etcd-backupd/backupd/internal/snapshot"
)

// restoreJob is one restore from a source that is known, by either command.
type restoreJob struct {
	restoreOrder
	cmd    *cobra.Command
	app    *app
	src    restore.Source
	ref    string   // the argument that names the source: an id, or a file
	naming []string // flags that belong to ref
	stored *stored  // nil for a file
}

// stored is a snapshot in a repository.
type stored struct {
	in       *repository.Cluster
	item     repository.Item
	manifest *backup.Manifest
}

// run finishes this very restore if it was interrupted. Else it plans, shows the plan
// and, unless it is a dry run, executes it.
func (j *restoreJob) run() error {
	if !j.dryRun {
		done, err := restore.FinishInterrupted(j.site, j.request, j.src.About())
		if err != nil {
			return j.explain(err)
		}
		if done != nil {
			return printFinished(j.app, *done)
		}
	} else if err := restore.CheckInterrupted(j.site); err != nil {
		return j.explain(err)
	}
	return j.explain(j.start())
}

func (j *restoreJob) start() error {
	ctx, a := j.cmd.Context(), j.app
	p, err := restore.NewPlan(j.src.About(), j.request)
	if err != nil {
		return err
	}
	work, err := j.site.Check(ctx, p)
	if err != nil {
		return err
	}
	if j.dryRun {
		_, err := work.WriteTo(a.stdout)
		return err
	}
	if _, err := work.WriteTo(a.progress); err != nil {
		return err
	}
	work.Others = j.others(work)
	work.Accept = j.announce(ctx, p)
	err = work.Execute(ctx, j.src, restore.Options{
		EtcdLog: a.log.zap, Progress: a.progress.report, InitialMmapBytes: j.mmapBytes,
	})
	if err != nil {
		return err
	}
	a.progress.stop()
	return printRestored(a, work.Summary())
}

// exists reports whether the repository has a history of a cluster with that id.
func (j *restoreJob) exists(ctx context.Context, id backup.MemberID) (bool, error) {
	all, err := repository.ReadTimelines(ctx, j.stored.in)
	return slices.ContainsFunc(all, func(t repository.Timeline) bool {
		return t.Manifest != nil && t.Manifest.ClusterID == id
	}), err
}

// noteTime says if the time in the id of the snapshot cannot be right.
func (j *restoreJob) noteTime(ctx context.Context) error {
	all, err := repository.Names(ctx, j.stored.in, "")
	if err != nil {
		return err
	}
	if repository.Untimely(all, time.Now())[j.stored.item.ID] {
		j.app.log.slog.Warn("the time of the snapshot contradicts the order of the history: a clock was wrong",
			"snapshot", j.stored.item.ID)
	}
	return nil
}

// announce tells the repository that a cluster with the plan's id is going to be made,
// so that its history is accepted from the first backup. It returns the command that
// says so where this could not be done, or would not be believed: the same cluster id
// may also mean that the restored cluster lost its data.
func (j *restoreJob) announce(ctx context.Context, p *restore.Plan) string {
	if j.stored == nil {
		return "" // a file, and so no repository: the next backup tells
	}
	same, err := j.exists(ctx, p.ClusterID)
	if err != nil {
		j.app.log.slog.Warn("the histories of the cluster cannot be read", "err", err)
	}
	if !same {
		err := repository.Expect(ctx, j.stored.in, p.ClusterID, j.stored.manifest,
			"restored from snapshot "+string(j.stored.item.ID), whoami())
		if err == nil {
			return ""
		}
		j.app.log.slog.Warn("the repository was not told of the new cluster", "err", err)
	}
	words := []string{"--cluster-id", p.ClusterID.String()}
	if same {
		words = []string{"TIMELINE"}
	}
	return acceptCommand(j.cmd, words...)
}

// perHost are flags that a command for another host does not take over. The first is
// of one member. The next two allow a risk that nobody has looked at there.
var perHost = append([]string{"initial-advertise-peer-urls", "replace", "allow-running", "dry-run"}, outputFlags...)

// others returns the commands that restore the members that are not restored here.
// Everything that must be equal is in them, whatever it followed from here.
func (j *restoreJob) others(w *restore.Work) []restore.Command {
	var out []restore.Command
	for _, m := range w.Plan.Members {
		if slices.ContainsFunc(w.Targets, func(t restore.Target) bool { return t.Member.Name == m.Name }) {
			continue
		}
		args := append([]string{j.ref}, j.naming...)
		args = append(args, "--name="+m.Name, "--initial-cluster="+w.Plan.InitialCluster(),
			"--initial-cluster-token="+w.Plan.Token)
		out = append(out, restore.Command{Member: m.Name, Line: commandWith(j.cmd, perHost, args...)})
	}
	return out
}

func printFinished(a *app, s restore.Summary) error {
	if a.global.writeOut != "json" {
		fmt.Fprintf(a.stdout, "Finished the interrupted restore of %s\n", s.Source)
	}
	return printRestored(a, s)
}

func printRestored(a *app, s restore.Summary) error {
	if a.global.writeOut == "json" {
		return printJSON(a.stdout, kindRestore, s)
	}
	for _, t := range s.Targets {
		fmt.Fprintf(a.stdout, "Restored member %s to %s\n", t.Name, t.DataDir)
	}
	fmt.Fprintf(a.stdout, "Cluster token: %s\n", s.Token)
	for _, t := range s.Targets {
		start := []string{"etcd", "--name", t.Name, "--data-dir", t.DataDir}
		if t.WALDir != "" {
			start = append(start, "--wal-dir", t.WALDir)
		}
		i := slices.IndexFunc(s.Members, func(m backup.Member) bool { return m.Name == t.Name })
		urls := strings.Join(s.Members[i].PeerURLs, ",")
		start = append(start, "--initial-advertise-peer-urls", urls, "--listen-peer-urls", urls)
		fmt.Fprintf(a.stdout, "Start it with its usual flags, as: %s ...\n", shellquote.Join(start...))
	}
	if len(s.Others) > 0 {
		fmt.Fprintf(a.stdout, "Restore the other members by these commands, each on its host. "+
			"Change nothing but the directories, the owner and the places of files.\n")
		for _, c := range s.Others {
			fmt.Fprintf(a.stdout, "  %s\n", c.Line)
		}
	}
	if s.Accept != "" {
		fmt.Fprintf(a.stdout, "Backups of the new cluster exit with 4 until its history is accepted:\n  %s\n", s.Accept)
	}
	return nil
}

// explain adds to an error the commands that can be run in place of this one.
func (j *restoreJob) explain(err error) error {
	var (
		interrupted *restore.InterruptedError
		token       *restore.TokenError
	)
	switch {
	case err == nil:
		return nil
	case errors.As(err, &interrupted):
		return j.explainInterrupted(interrupted, err)
	case errors.As(err, &token):
		return j.explainToken(token, err)
	case j.src == nil && errors.As(restore.CheckInterrupted(j.site), &interrupted):
		// Without the source nobody can tell whether it is the same restore.
		return withHints(err, finishHint(interrupted))
	case errors.Is(err, backup.ErrCorrupt) && j.stored != nil:
		return j.explainDamage(err)
	}
	return err
}

func finishHint(e *restore.InterruptedError) string {
	return "to finish the interrupted restore: " +
		shellquote.Join("backupd", "restore", "--finish", "--data-dir="+e.Dirs[0])
}

func (j *restoreJob) explainInterrupted(e *restore.InterruptedError, err error) error {
	hints := []string{finishHint(e)}
	if len(e.Differs) > 0 {
		hints = append(hints, "to start this one, run that command first, and then this one, "+
			"which moves the finished data aside: "+j.again("--replace"))
	}
	return withHints(err, hints...)
}

// again returns the running command with its source in full, and with more flags.
func (j *restoreJob) again(more ...string) string { return j.againWithout(nil, more...) }

func (j *restoreJob) againWithout(drop []string, more ...string) string {
	args := append([]string{j.ref}, j.naming...)
	return commandWith(j.cmd, drop, append(args, more...)...)
}

// explainDamage names the snapshot that can be restored in place of a damaged one.
func (j *restoreJob) explainDamage(err error) error {
	others, lerr := choice.Alternatives(j.cmd.Context(), j.stored.in, j.stored.item, time.Now())
	if lerr != nil {
		return errors.Join(err, fmt.Errorf("look for another snapshot: %w", lerr))
	}
	return withHints(err, choices(j.cmd, &choice.Error{Others: others})...)
}

// explainToken prints the restore that the token was made for, and this one with a
// fresh token.
func (j *restoreJob) explainToken(e *restore.TokenError, err error) error {
	need := &restoreJob{restoreOrder: j.restoreOrder, cmd: j.cmd, src: j.src, ref: j.ref, naming: j.naming}
	var drop, flags, but []string
	if e.OtherSnapshot {
		found, ferr := j.madeFor(e)
		if ferr != nil {
			return errors.Join(err, fmt.Errorf("look for the snapshot of the token: %w", ferr))
		}
		need.src, need.ref = nil, "SNAPSHOT"
		if found == nil {
			but = append(but, "with the snapshot that was printed with it as SNAPSHOT")
		} else {
			need.src, need.ref = found.src, found.ref
			flags = append(flags, found.naming...)
		}
	}
	if e.OtherChanges {
		drop = append(drop, "bump-revision", "mark-compacted", "clear-alarms")
		if e.BumpRevision > 0 {
			flags = append(flags, fmt.Sprintf("--bump-revision=%d", e.BumpRevision), "--mark-compacted")
		}
		if e.ClearAlarms {
			flags = append(flags, "--clear-alarms")
		}
	}
	if e.OtherMembers {
		if members := need.recordedMembers(e); members != "" {
			flags = append(flags, "--initial-cluster="+members)
		} else {
			but = append(but, "with the --initial-cluster that was printed with it")
		}
	}
	what := strings.Join(append([]string{"to restore what the token was made for"}, but...), ", ")
	return withHints(err, what+": "+need.againWithout(drop, flags...),
		"to restore this, with a fresh token and then with that for all members: "+
			j.againWithout([]string{"initial-cluster-token"}))
}

// recordedMembers returns the members that the snapshot records, if the token was made
// for them.
func (j *restoreJob) recordedMembers(e *restore.TokenError) string {
	if j.src == nil {
		return ""
	}
	p, err := restore.NewPlan(j.src.About(), restore.Request{
		Token: e.Token, BumpRevision: e.BumpRevision, MarkCompacted: e.BumpRevision > 0, ClearAlarms: e.ClearAlarms,
	})
	if err != nil {
		return ""
	}
	return p.InitialCluster()
}

// tokenSearch is how many manifests are read to find the snapshot of a token.
const tokenSearch = 200

// madeFor finds the snapshot that a token was made for, among the newest ones of the
// cluster. It returns nil if it is not there, and for a file.
func (j *restoreJob) madeFor(e *restore.TokenError) (*restoreJob, error) {
	if j.stored == nil {
		return nil, nil
	}
	ctx := j.cmd.Context()
	items, err := j.stored.in.Newest(ctx, tokenSearch, "", time.Now())
	if err != nil {
		return nil, err
	}
	for r := range j.stored.in.Manifests(ctx, items) {
		if r.Err != nil || !e.Names(r.Manifest.Plain.SHA256) {
			continue // one that cannot be read cannot be restored either
		}
		found := &restoreJob{ref: string(r.ID), src: snapshot.NewSource(j.stored.in, r.Manifest, nil)}
		if r.State() == backup.Suspect {
			found.naming = []string{"--allow-suspect"}
		}
		return found, nil
	}
	return nil, nil
}
