package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/repository/acceptance"
	"github.com/etcd-backupd/backupd/internal/repository/lineage"
)

// refuseBegun names the restores that were begun, with the commands that join them. What is
// right mostly is printed first: if the snapshot of this restore was taken after all of them
// were begun, that is to begin another one.
func (j *begun) refuseBegun(ctx context.Context, all []lineage.Acceptance) error {
	var what, hints []string
	now, host := time.Now(), hostname()
	for _, a := range all {
		one := fmt.Sprintf("%s ago on %s, for member %s in %s", age(a.At, now), hostOf(a, host), a.Begun.Member, a.Begun.Dir)
		what = append(what, one)
		hint := "to join it"
		if len(all) > 1 { // a host may have begun several
			hint = "to join that of " + one
		}
		if a.Begun.Member == j.site.Name {
			hint += " (only one of the two members " + j.site.Name + " may ever run)"
		}
		hints = append(hints, hint+j.older(a, now)+": "+j.joinCommand(ctx, a))
	}
	if own := j.stored.item.ID; slices.ContainsFunc(all, func(a lineage.Acceptance) bool { return !j.after(a, now) }) {
		hints = append(hints, "to begin another one: "+j.again("--new"))
	} else {
		hints = slices.Insert(hints, 0, fmt.Sprintf("to begin another one, of snapshot %s, which was taken %s ago, "+
			"after that: %s", own, ageOf(own, now), j.again("--new")))
	}
	return withHints(&backup.RefusedError{Reason: fmt.Sprintf("a restore of cluster %s was begun %s%s",
		j.stored.in.Name(), j.how(all), strings.Join(what, ", and "))}, hints...)
}

// how says by what the restores were begun, if this one is by a plan or a token.
func (j *begun) how(all []lineage.Acceptance) string {
	other := func(a lineage.Acceptance) bool { return !strings.Contains(a.Begun.Token, "-plan") }
	switch {
	case !j.joins():
		return ""
	case j.plan != nil && !slices.ContainsFunc(all, other):
		return "by another plan "
	}
	return "with another token "
}

// after reports whether the snapshot of this restore was taken after another one was begun, and not
// of a first member of that which runs alone.
func (j *begun) after(a lineage.Acceptance, now time.Time) bool {
	own := j.stored.item
	return own.ID != a.Restored.Snapshot && own.Taken == backup.Verified &&
		own.ID.Time().After(a.At) && !own.ID.Future(now)
}

// older says that the snapshot of a restore that was begun is older than that of this one.
func (j *begun) older(a lineage.Acceptance, now time.Time) string {
	own, its := j.stored.item.ID, a.Restored.Snapshot
	if !own.Time().After(its.Time()) {
		return ""
	}
	return fmt.Sprintf(" (its snapshot was taken %s ago; there is a newer one, %s, of %s ago)",
		ageOf(its, now), own, ageOf(own, now))
}

// hostname returns the name of this host; without one it is none of those that are named.
func hostname() string {
	host, _ := os.Hostname()
	return host
}

func hostOf(a lineage.Acceptance, own string) string {
	if a.Begun.Host == own {
		return "this host (" + own + ")"
	}
	return "host " + a.Begun.Host
}

// joinCommand is the running command, with all that must be equal.
func (j *begun) joinCommand(ctx context.Context, a lineage.Acceptance) string {
	if j.plan != nil && len(j.site.Places) > 0 {
		return "restore by its plan, if it has one, in place of this one"
	}
	b := a.Begun
	args := []string{string(a.Restored.Snapshot), "--cluster=" + j.stored.in.Name()}
	drop := []string{"mark-compacted", "clear-alarms", "new", "allow-suspect"}
	if item, err := j.stored.in.Item(ctx, a.Restored.Snapshot); err == nil && item.State() == backup.Suspect {
		args = append(args, "--allow-suspect")
	}
	args = append(args, "--initial-cluster="+b.InitialCluster, "--initial-cluster-token="+b.Token,
		fmt.Sprintf("--bump-revision=%d", b.BumpRevision))
	if b.ClearAlarms {
		args = append(args, "--clear-alarms")
	}
	if j.plan != nil { // which has the places of the member
		drop = append(drop, "plan")
		if j.site.DataDir != "" {
			args = append(args, "--data-dir="+j.site.DataDir)
		}
		if j.site.WALDir != "" {
			args = append(args, "--wal-dir="+j.site.WALDir)
		}
	}
	return commandWith(j.cmd, drop, args...)
}

// notesOfBegun are for who makes a plan while a restore is going on. They stay in the plan, and so
// have no ages.
func notesOfBegun(ctx context.Context, j *restoreJob) (notes []string) {
	seen, err := acceptance.Begun(ctx, j.stored.in, time.Now())
	if err != nil {
		j.app.log.slog.Warn("nobody knows whether another host has begun a restore: the repository cannot be read",
			"err", err)
	}
	for _, a := range seen {
		notes = append(notes, fmt.Sprintf("a restore of this cluster was begun at %s on host %s, for member %s in %s, "+
			"of snapshot %s: for a day, or until its cluster is backed up, a restore by this plan needs --new",
			a.At.UTC().Format(time.RFC3339), a.Begun.Host, a.Begun.Member, a.Begun.Dir, a.Restored.Snapshot))
	}
	return notes
}
