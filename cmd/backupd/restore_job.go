package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/kballard/go-shellquote"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/members/from"
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
	ref    string        // the argument that names the source: an id, or a file
	naming []string      // flags that belong to ref
	stored *stored       // nil for a file
	found  *from.Found   // nil without --from
	plan   *restore.Plan // nil unless it was decided before

	beginNew bool // although another restore was begun
	empty    emptyFlags
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
		done, err := restore.FinishInterrupted(j.cmd.Context(), j.site, j.request, j.src.About())
		if err != nil {
			return j.explain(err)
		}
		if done != nil {
			return printFinished(j.app, *done)
		}
	} else if err := restore.CheckInterrupted(j.site); err != nil {
		return j.explain(err)
	}
	return j.explain(stopping(j.start(), j.found))
}

func (j *restoreJob) start() error {
	ctx, a := j.cmd.Context(), j.app
	begun := begun{restoreJob: j}
	if err := begun.lookForBegun(ctx); err != nil {
		return err
	}
	p, err := begun.newPlan(begun.resumed)
	if err != nil {
		return err
	}
	work, err := j.site.Check(ctx, p)
	if err != nil {
		return err
	}
	if err := checkAlive(ctx, j, work); err != nil {
		return err
	}
	if err := j.empty.checkLost(ctx, j, p); err != nil {
		return err
	}
	if j.dryRun {
		return j.try(work)
	}
	if _, err := work.WriteTo(a.progress); err != nil {
		return err
	}
	work.Others = j.others(work)
	if work.Accept, err = begun.announce(ctx, work); err != nil {
		return err
	}
	err = work.Execute(ctx, j.src, restore.Options{
		EtcdLog: a.log.zap, Progress: a.progress.report, InitialMmapBytes: j.mmapBytes,
	})
	if err != nil && !work.Published() {
		begun.withdraw(ctx, p.ClusterID)
	}
	if err != nil {
		return err
	}
	begun.confirm(ctx, work)
	a.progress.stop()
	return printRestored(a, work.Summary())
}

// try does all but the restore.
func (j *restoreJob) try(work *restore.Work) error {
	if err := work.Try(j.cmd.Context(), j.src); err != nil {
		return err
	}
	if printed, err := j.app.document(kindRestorePlan, work.Summary()); printed {
		return err
	}
	_, err := work.WriteTo(j.app.stdout)
	return err
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
	if errors.Is(err, backup.ErrUnordered) { // the id is enough
		j.app.log.slog.Warn("the histories of the cluster cannot be listed", "err", err)
		return nil
	}
	if err != nil {
		return err
	}
	if choice.Untimely(all, time.Now())[j.stored.item.ID] {
		j.app.log.slog.Warn("the time of the snapshot contradicts the order of the history: a clock was wrong",
			"snapshot", j.stored.item.ID)
	}
	return nil
}

// perHost are flags that a command for another host does not take over. The first is
// of one member. The next two allow a risk that nobody has looked at there. A copy of
// standard input is of this host.
var perHost = append([]string{
	"initial-advertise-peer-urls", "members", "replace", "allow-running", "dry-run", "spool", "spool-min-free", "new",
}, outputFlags...)

// others returns the commands that restore the members that are not restored here.
// Everything that must be equal is in them, whatever it followed from here.
func (j *restoreJob) others(w *restore.Work) []restore.Command {
	var out []restore.Command
	for _, m := range w.Plan.Members {
		if slices.ContainsFunc(w.Targets, func(t restore.Target) bool { return t.Member.Name == m.Name }) {
			continue
		}
		if j.plan != nil {
			out = append(out, restore.Command{Member: m.Name, Line: commandByPlan(j, m.Name)})
			continue
		}
		args := append([]string{j.source()}, j.naming...)
		args = append(args, "--name="+m.Name, "--initial-cluster="+w.Plan.InitialCluster(),
			"--initial-cluster-token="+w.Plan.Token)
		if j.stored != nil { // of a file it is said already, or is 0
			args = append(args, fmt.Sprintf("--bump-revision=%d", w.Plan.Request.BumpRevision))
		}
		drop, place := elsewhere(j, m.Name)
		args = append(append(args, absolutePaths(j.cmd)...), place...)
		out = append(out, restore.Command{Member: m.Name, Line: commandWith(j.cmd, append(drop, perHost...), args...)})
	}
	return out
}

// elsewhere returns which flags a command for the host of another member does not have, and the place
// that it needs then: files out of a snapshot are those of their host.
func elsewhere(j *restoreJob, member string) (drop, place []string) {
	stored := slices.ContainsFunc(storedFlags, func(name string) bool {
		f := j.cmd.Flags().Lookup(name)
		return f != nil && f.Changed
	})
	if !stored || j.found.Describes(member) {
		return nil, nil
	}
	if j.plan == nil || j.plan.PlaceOf(member).DataDir == "" {
		place = []string{"--data-dir=DIR"}
	}
	return append(slices.Clone(storedFlags), "wal-dir"), place
}

// source returns the argument that names the source, which may be a file.
func (j *restoreJob) source() string {
	if j.stored == nil && j.ref != "-" {
		return absolute(j.ref)
	}
	return j.ref
}

// absolutePaths returns the flags that were given with relative paths, with absolute ones:
// nobody knows in which folder a command for another host will be run.
func absolutePaths(cmd *cobra.Command) []string {
	var out []string
	cmd.Flags().Visit(func(f *pflag.Flag) {
		paths := []string{"data-dir", "wal-dir", "identity", "from"}
		if !slices.Contains(paths, f.Name) && !strings.HasSuffix(f.Name, "-file") {
			return
		}
		values := []string{f.Value.String()}
		if list, ok := f.Value.(pflag.SliceValue); ok {
			values = list.GetSlice()
		}
		if !slices.ContainsFunc(values, func(v string) bool { return v != "" && !filepath.IsAbs(v) }) {
			return
		}
		for _, v := range values {
			out = append(out, "--"+f.Name+"="+absolute(v))
		}
	})
	return out
}

// absolute returns a path that a flag names, as the restore will take it.
func absolute(path string) string {
	if path == "" {
		return ""
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return path // the restore says so
	}
	return abs
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
	case errors.As(err, new(*restore.UnmovedError)):
		return explainUnmoved(err)
	case errors.As(err, &token):
		return j.explainToken(token, err)
	case j.src == nil && errors.As(restore.CheckInterrupted(j.site), &interrupted):
		// Without the source nobody can tell whether it is the same restore.
		return withHints(err, interruptedHints(interrupted)...)
	case errors.Is(err, backup.ErrCorrupt) && j.plan != nil:
		return withHints(err, "make a plan of another snapshot, for all members: backupd plan")
	case errors.Is(err, backup.ErrCorrupt) && j.stored != nil:
		return explainDamage(j.cmd, j.stored.in, j.stored.item, err)
	}
	return err
}

func interruptedHints(e *restore.InterruptedError) []string {
	hints := []string{"to finish the interrupted restore: " + finishCommand(e.Dirs[0], "")}
	if restore.CanAbort(restore.Site{DataDir: e.Dirs[0]}) {
		hints = append(hints, abortHint(e.Dirs[0]))
	}
	return hints
}

func finishCommand(dataDir, outputDir string) string {
	if outputDir != "" {
		return shellquote.Join("backupd", "restore", "--finish", "--output-dir="+outputDir)
	}
	return shellquote.Join("backupd", "restore", "--finish", "--data-dir="+dataDir)
}

// explainUnmoved says what can be done about a restore that cannot be put into place.
func explainUnmoved(err error) error {
	var unmoved *restore.UnmovedError
	if !errors.As(err, &unmoved) {
		return err
	}
	return withHints(err, "nothing has been moved yet: run the same command again once the reason is gone",
		abortHint(unmoved.Dirs[0]))
}

func abortHint(dir string) string {
	return "to give it up, with everything as it was: " +
		shellquote.Join("backupd", "restore", "--abort", "--data-dir="+dir)
}

func (j *restoreJob) explainInterrupted(e *restore.InterruptedError, err error) error {
	hints := interruptedHints(e)
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
		if e.ClearNoSpace && j.stored == nil {
			but = append(but, "by 'backupd restore', which clears the alarm NOSPACE")
		}
	}
	if e.OtherMembers {
		if members := need.recordedMembers(e); members != "" {
			flags = append(flags, "--initial-cluster="+members)
		} else {
			but = append(but, "with the --initial-cluster that was printed with it")
		}
	}
	var again []string
	if j.stored != nil { // what the token was made for may be told to others
		again = append(again, "--new")
	}
	what := strings.Join(append([]string{"to restore what the token was made for"}, but...), ", ")
	return withHints(err, what+": "+need.againWithout(drop, flags...),
		"to restore this, with a fresh token and then with that for all members: "+
			j.againWithout([]string{"initial-cluster-token"}, again...))
}

// recordedMembers returns the members that the snapshot records, if the token was made
// for them.
func (j *restoreJob) recordedMembers(e *restore.TokenError) string {
	if j.src == nil {
		return ""
	}
	p, err := restore.NewPlan(j.src.About(), restore.Request{
		Token: e.Token, BumpRevision: e.BumpRevision, MarkCompacted: e.BumpRevision > 0, ClearAlarms: e.ClearAlarms,
		ClearNoSpace: e.ClearNoSpace, AllowLocalhost: true,
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
