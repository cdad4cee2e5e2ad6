package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/publish"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/repository/acceptance"
	"github.com/etcd-backupd/backupd/internal/repository/lineage"
	"github.com/etcd-backupd/backupd/internal/restore/undo"
)

// withdrawalTime is how long an undo waits for a store: the data is back by then, and the store
// may be what is broken.
const withdrawalTime = 20 * time.Second

// withdrawal takes back what a repository says of a restore that is undone: that it was begun
// here, to these directories.
type withdrawal struct {
	app  *app
	cmd  *cobra.Command
	repo *repoFlags
	dirs []string
	// putBack is the time of the old data that is put back; empty if it was before.
	putBack string
	dry     bool
}

// stillAnnounced says what an undo without a repository leaves, before the command for it.
const stillAnnounced = "no repository was given: " + backedUp +
	"; if this restore was announced in a repository, that goes on to tell the other hosts for a day that the restore " +
	"was begun; to take that back: "

// newWithdrawal returns that of an undo.
func newWithdrawal(cmd *cobra.Command, a *app, repo *repoFlags, d *undo.Done, dry bool) *withdrawal {
	w := &withdrawal{app: a, cmd: cmd, repo: repo, putBack: d.Time, dry: dry}
	for _, t := range d.Targets {
		w.dirs = append(w.dirs, t.DataDir)
	}
	return w
}

// note takes the announcements back, if it can, and adds to d what became of them. It never
// fails: the undo is done.
func (w *withdrawal) note(ctx context.Context, d *undo.Done) {
	if w.repo.repo == "" {
		d.Notes = append(d.Notes, stillAnnounced+w.command("config", "--repo=REPO"))
		return
	}
	stamp := backup.TimeOf(time.Now().Add(acceptance.BegunFor)) // all that was begun before
	notes, err := w.withdraw(ctx, stamp)
	d.Notes = append(d.Notes, notes...)
	if err != nil {
		w.app.log.slog.Warn("the announcement of the restore could not be taken back", "err", err)
		d.Notes = append(d.Notes, "if this restore was announced in "+w.repo.repo+", that goes on to tell the other hosts "+
			"for a day that the restore was begun, for it could not be taken back; to do that: "+w.command(""))
	}
}

// late takes back the announcements of restores that were undone before, when no repository
// was given or it was away. It returns the error of the undo if there is none.
func (w *withdrawal) late(ctx context.Context, missing error) (*undo.Done, error) {
	if !errors.Is(missing, fs.ErrNotExist) || w.repo.repo == "" {
		return nil, missing
	}
	stamp, err := publish.Undone(w.dirs)
	if stamp == "" || err != nil {
		return nil, missing
	}
	notes, err := w.withdraw(ctx, stamp)
	if err != nil {
		return nil, errors.Join(missing, fmt.Errorf("look for its announcement: %w", err))
	}
	if len(notes) == 0 {
		return nil, missing
	}
	return &undo.Done{Time: stamp, Targets: []undo.Target{}, Notes: notes}, nil
}

// command is the undo, given again without a flag: nothing is left that --finish could do.
func (w *withdrawal) command(without string, args ...string) string {
	if w.cmd.Flags().Changed("finish") {
		args = append(args, "--undo")
	}
	return commandWith(w.cmd, []string{"old-data", "dry-run", "finish", without}, args...)
}

// withdraw takes back the announcements of restores that were begun until that time, and says
// of each what became of it.
func (w *withdrawal) withdraw(ctx context.Context, until string) (notes []string, err error) {
	ctx, cancel := context.WithTimeout(ctx, withdrawalTime)
	defer cancel()
	repo, err := w.repo.openToRead(ctx, w.app)
	if err != nil {
		return nil, err
	}
	names := []string{w.repo.cluster}
	if w.repo.cluster == "" {
		if names, err = repo.Clusters(ctx); err != nil {
			return nil, err
		}
	}
	for _, name := range names {
		of, err := w.withdrawIn(ctx, repo.Cluster(name), until)
		if notes = append(notes, of...); err != nil {
			return notes, err
		}
	}
	return notes, nil
}

func (w *withdrawal) withdrawIn(ctx context.Context, in *repository.Cluster, until string) (notes []string, err error) {
	all, err := acceptance.Announced(ctx, in)
	if err != nil {
		return nil, err
	}
	for _, a := range all {
		its, err := w.undone(a, until)
		if err != nil {
			return notes, err
		}
		if !its {
			continue
		}
		note, err := w.one(ctx, in, a)
		if err != nil {
			return notes, err
		}
		notes = append(notes, note)
	}
	return notes, nil
}

// undone reports whether a is a restore to one of the directories until that time, of which
// nothing is in place: the data that it has moved aside was put back, or older data.
func (w *withdrawal) undone(a lineage.Acceptance, until string) (bool, error) {
	host, err := os.Hostname()
	begun := backup.TimeOf(a.At)
	if err != nil || a.Begun.Host != host || !slices.Contains(w.dirs, a.Begun.Dir) || begun > until || !w.recent(a) {
		return false, err
	}
	olds, err := publish.Olds([]string{a.Begun.Dir})
	stays := slices.ContainsFunc(olds, func(o publish.Old) bool {
		return o.Stamp >= begun && (w.putBack == "" || o.Stamp < w.putBack)
	})
	return !stays, err
}

// recent reports whether a may be what is undone: that has moved the data aside within a day. If
// the data was put back before, and nobody knows when it was moved, it was begun within a day.
func (w *withdrawal) recent(a lineage.Acceptance) bool {
	if w.putBack == "" {
		return time.Since(a.At).Abs() < acceptance.BegunFor
	}
	return w.putBack < backup.TimeOf(a.At.Add(acceptance.BegunFor))
}

// one takes one announcement back, unless the new cluster lives.
func (w *withdrawal) one(ctx context.Context, in *repository.Cluster, a lineage.Acceptance) (string, error) {
	timelines, err := repository.ReadTimelines(ctx, in)
	if err != nil {
		return "", err
	}
	what := fmt.Sprintf("that a restore of cluster %s was begun here %s ago (new cluster %s)",
		in.Name(), age(a.At, time.Now()), a.ClusterID)
	lives := slices.ContainsFunc(timelines, func(t repository.Timeline) bool {
		return t.Manifest != nil && t.Manifest.ClusterID == a.ClusterID
	})
	switch {
	case lives:
		return "the repository goes on to say " + what + ", for it has backups of the new cluster: " +
			w.acceptOld(in, timelines, a), nil
	case w.dry:
		return "the repository would no longer say " + what, nil
	}
	if err := acceptance.Withdraw(ctx, in, a.ClusterID); err != nil {
		return "", err
	}
	return "the repository no longer says " + what + "; if members of it were restored on other hosts, undo that, too, " +
		"or state that it goes on: " + acceptCommand(w.cmd, "--cluster-id", a.ClusterID.String(), "--cluster", in.Name()), nil
}

// backedUp says what comes after an undo, where nobody knows of a repository whether it has
// backups of the restored cluster.
const backedUp = "if the restored cluster was backed up, the next backup of the old data exits with 4: accept the " +
	"history of the old data then (backupd timeline list, backupd timeline accept TIMELINE --reason TEXT), and not " +
	"that of the undone restore"

// acceptOld says which history goes on after the undo. The histories of the new cluster are
// those of the restore that was undone.
func (w *withdrawal) acceptOld(
	in *repository.Cluster, all repository.Timelines, undone lineage.Acceptance,
) string {
	var olds, news []string
	for _, t := range all {
		if t.Manifest != nil && t.Manifest.ClusterID == undone.ClusterID {
			news = append(news, t.Name)
		} else {
			olds = append(olds, t.Name)
		}
	}
	cluster := []string{"--cluster", in.Name()}
	which := "TIMELINE"
	choose := "choose the TIMELINE of the old data by: " +
		commandIn(w.cmd, append([]string{"timeline", "list"}, cluster...)...) + "; "
	if len(olds) == 1 {
		which, choose = olds[0], ""
	}
	return "the next backup of the old data exits with 4 until its history is accepted, and not " +
		strings.Join(news, " or ") + ", which is of the restore that was undone; " + choose + "to accept it: " +
		acceptCommand(w.cmd, append([]string{which}, cluster...)...)
}
