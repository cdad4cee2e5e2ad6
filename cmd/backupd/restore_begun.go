package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/publish"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/repository/acceptance"
	"github.com/etcd-backupd/backupd/internal/repository/lineage"
	"github.com/etcd-backupd/backupd/internal/restore"
)

const begunHelp = `If members on other hosts are to be restored, too, the announcement says which restore was
begun. On another host "restore latest" is refused then for a day (exit code 6), with the
command that joins that restore, and so is a restore by another plan or token; --new begins
another one. To join it by itself would be to guess. The same command on the same host goes
on with what it has begun. A verified backup of the restored cluster ends all that.

`

// begun is a job with what is known of restores of the cluster that were begun, here and
// elsewhere.
type begun struct {
	*restoreJob
	seen []lineage.Acceptance
	// resumed is the one that this very command has begun, and that was killed before
	// anything was put into place.
	resumed *lineage.Acceptance
	// made is true if this run has announced the new cluster.
	made bool
}

// lookForBegun refuses to begin a restore while another one is going on, unless it was asked
// to. A restore with a token joins that of the token, and no other.
func (j *begun) lookForBegun(ctx context.Context) error {
	if j.stored == nil {
		return nil
	}
	seen, err := acceptance.Begun(ctx, j.stored.in, time.Now())
	if err != nil {
		j.app.log.slog.Warn("nobody knows whether another host has begun a restore, or whether its cluster was backed up "+
			"since: the repository cannot be read", "err", err)
	}
	j.seen = seen
	if len(seen) == 0 || j.beginNew {
		return nil
	}
	if j.joins() {
		if goesOn, err := j.goesOn(ctx); goesOn || err != nil {
			return err
		}
		return j.refuseBegun(ctx, seen)
	}
	if len(seen) == 1 && j.resumes(seen[0]) {
		j.resumed = &seen[0]
		return nil
	}
	return j.refuseBegun(ctx, seen)
}

// goesOn reports whether the restore of the plan or token was announced already.
func (j *begun) goesOn(ctx context.Context) (bool, error) {
	p, err := j.newPlan(nil)
	if err != nil {
		return false, err
	}
	all, err := repository.ReadAcceptances(ctx, j.stored.in)
	return slices.ContainsFunc(all, func(a lineage.Acceptance) bool { return a.ClusterID == p.ClusterID }), err
}

// resumes reports whether a is the restore that this command has begun before it was killed.
// What was put into place is another matter: a server may have run on it.
func (j *begun) resumes(a lineage.Acceptance) bool {
	host, err := os.Hostname()
	dir, derr := publish.Resolve(j.site.DataDir)
	b := a.Begun
	if err != nil || derr != nil || j.site.OutputDir != "" || b.Host != host || b.Dir != dir || b.Member != j.site.Name ||
		a.Restored.Snapshot != j.stored.item.ID || b.Replaces && !j.site.Replace {
		return false
	}
	if _, err := j.newPlan(&a); err != nil {
		return false // other changes, or other members
	}
	return !j.published(b, a.At)
}

// published reports whether the restore that was begun at that time may have put something
// into place: old data was moved aside then or, if there was none, there is some now.
func (j *begun) published(b *lineage.Begun, at time.Time) bool {
	dirs := []string{b.Dir}
	if j.site.WALDir != "" {
		wal, err := publish.Resolve(j.site.WALDir)
		if err != nil {
			return true
		}
		dirs = append(dirs, wal)
	}
	if b.Replaces {
		olds, err := publish.Olds(dirs)
		return err != nil || slices.ContainsFunc(olds, func(o publish.Old) bool { return o.Stamp >= backup.TimeOf(at) })
	}
	return slices.ContainsFunc(dirs, func(dir string) bool {
		f, err := publish.NewFolder(publish.Place{Dir: dir}, nil)
		return err != nil || len(f.Old) > 0
	})
}

// joins reports whether the restore is part of one that was decided before: members of the
// new cluster may be restored already.
func (j *restoreJob) joins() bool { return j.plan != nil || j.request.Token != "" }

// newPlan decides the restore, with the token of the one that it goes on with.
func (j *begun) newPlan(resumed *lineage.Acceptance) (*restore.Plan, error) {
	r := j.request
	if j.plan != nil {
		return j.plan, nil
	}
	if resumed == nil {
		return restore.NewPlan(j.src.About(), r)
	}
	if r.AutoBump { // it may come to another number by now
		r.BumpRevision, r.MarkCompacted = resumed.Begun.BumpRevision, resumed.Begun.BumpRevision > 0
	}
	if _, ours := restore.TokenBump(resumed.Begun.Token); !ours {
		return nil, errors.New("a token that was made up proves nothing")
	}
	r.Token = resumed.Begun.Token
	p, err := restore.NewPlan(j.src.About(), r)
	if err == nil {
		p.Request.Token = "" // nobody has asked for it: the journal says what was asked
	}
	return p, err
}

// announce tells the repository that a cluster with the plan's id is going to be made,
// so that its history is accepted from the first backup, and other hosts know of it. It
// returns the command that says so where this could not be done, or would not be believed:
// the same cluster id may also mean that the restored cluster lost its data. It refuses if
// another host has begun a restore at the same moment.
func (j *begun) announce(ctx context.Context, w *restore.Work) (accept string, err error) {
	if j.stored == nil {
		return "", nil // a file, and so no repository: the next backup tells
	}
	p := w.Plan
	same, err := j.exists(ctx, p.ClusterID)
	if err != nil {
		j.app.log.slog.Warn("the histories of the cluster cannot be read", "err", err)
	}
	words := []string{"--cluster-id", p.ClusterID.String()}
	if same {
		words = []string{"TIMELINE"}
	} else {
		err := j.expect(ctx, w)
		if err == nil {
			return "", j.withdrawIfNotAlone(ctx, p.ClusterID)
		}
		j.app.log.slog.Warn("the repository was not told of the new cluster, and other hosts are not warned "+
			"that a restore was begun", "err", err)
	}
	return acceptCommand(j.cmd, words...), nil
}

// expect announces the new cluster and, if members of it are still to be restored, the
// restore.
func (j *begun) expect(ctx context.Context, w *restore.Work) (err error) {
	p, reason := w.Plan, "restored from snapshot "+string(j.stored.item.ID)
	host, herr := os.Hostname()
	if complete(w) || herr != nil {
		return acceptance.Expect(ctx, j.stored.in, p.ClusterID, j.stored.manifest, reason, whoami())
	}
	t := w.Summary().Targets[0]
	j.made, err = acceptance.Begin(ctx, j.stored.in, p.ClusterID, j.stored.manifest, lineage.Begun{
		Host: host, Member: t.Name, Dir: t.DataDir, Replaces: t.Replaces,
		Token: p.Token, InitialCluster: p.InitialCluster(),
		BumpRevision: p.Request.BumpRevision, ClearAlarms: p.Request.ClearAlarms,
	}, reason, whoami())
	return err
}

// complete reports whether no other host has to restore a member.
func complete(w *restore.Work) bool { return len(w.Targets) == len(w.Plan.Members) }

// withdrawIfNotAlone gives this restore up if another one was announced since this command
// has looked: both have announced theirs before they look again, so at least one sees the
// other.
func (j *begun) withdrawIfNotAlone(ctx context.Context, own backup.MemberID) error {
	if !j.made {
		return nil
	}
	now, err := acceptance.Begun(ctx, j.stored.in, time.Now())
	if err != nil {
		j.app.log.slog.Warn("nobody knows whether another host begins a restore at the same moment", "err", err)
	}
	for _, a := range now {
		known := slices.ContainsFunc(j.seen, func(s lineage.Acceptance) bool { return s.ClusterID == a.ClusterID })
		if a.ClusterID == own || known {
			continue
		}
		j.withdraw(ctx, own)
		return backup.WithHint(&backup.RefusedError{Reason: fmt.Sprintf(
			"another restore of cluster %s was begun at the same moment on host %s", j.stored.in.Name(), a.Begun.Host)},
			"look what became of that one, which may have been given up, too, and run this command again")
	}
	return nil
}

// withdraw takes the announcement back: nothing was put into place.
func (j *begun) withdraw(ctx context.Context, id backup.MemberID) {
	if !j.made {
		return // it is another's, which may go on: of another host, or of the same command before
	}
	if err := acceptance.Withdraw(ctx, j.stored.in, id); err != nil {
		j.app.log.slog.Warn("other hosts are still told that this restore was begun", "err", err)
	}
}

// confirm announces a cluster again that another host has announced, for that may have
// failed meanwhile and have taken it back.
func (j *begun) confirm(ctx context.Context, w *restore.Work) {
	if j.stored == nil || w.Accept != "" || j.made || j.resumed != nil || complete(w) {
		return
	}
	if err := j.expect(ctx, w); err != nil {
		j.app.log.slog.Warn("the repository was not told of the new cluster", "err", err)
	}
}
