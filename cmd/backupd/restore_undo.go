package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"

	"github.com/kballard/go-shellquote"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/etcd-backupd/backupd/internal/publish"
	"github.com/etcd-backupd/backupd/internal/restore"
	"github.com/etcd-backupd/backupd/internal/restore/undo"
)

// undoFlags put the data back that a restore has moved aside.
type undoFlags struct {
	set bool
	old string
}

const undoHelp = `--undo puts the old data back that a restore has moved aside (--replace), and moves the
restored data to DIR` + restore.UndonePrefix + `TIME: nothing is deleted. It needs the --wal-dir of the restore,
if that had one. If several restores have moved data aside it is refused, with a command
for each; --old-data says which one is meant. If a repository is given, or the configuration
says where it is, the announcement of the restore is taken back there; else the undo prints
how to do so. A repository that cannot be reached never stops an undo. --finish of an undo that
was interrupted does the same, by a variable or the configuration.

`

func (u *undoFlags) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.BoolVar(&u.set, "undo", false,
		"put the old data of --data-dir or --output-dir back, and move the restored data aside")
	f.StringVar(&u.old, "old-data", "", "with --undo: which old data, by the TIME in its name")
}

// run finishes this undo if it was interrupted. Else it puts the old data back or, in a dry
// run, says what it would do.
func (u *undoFlags) run(cmd *cobra.Command, a *app, repo *repoFlags, order restoreOrder) error {
	if cmd.Flags().Changed("old-data") && u.old == "" {
		return &usageError{errors.New("--old-data is empty: give the TIME in the name of the old data")}
	}
	ctx, r := cmd.Context(), undo.Request{Site: order.site, Old: u.old}
	if !order.dryRun {
		if done, err := u.finish(cmd, a, repo, order); done || err != nil {
			return err
		}
	}
	work, err := undo.Check(ctx, r)
	if errors.Is(err, fs.ErrNotExist) && order.site.OutputDir == "" {
		return u.again(cmd, a, repo, order, err)
	}
	if err != nil {
		return u.explain(cmd, err)
	}
	if order.dryRun {
		if err := work.Try(); err != nil {
			return err
		}
		u.withdraw(cmd, a, repo, order, &work.Done)
		return printUndoPlan(a, &work.Done)
	}
	done, err := work.Execute(ctx)
	if err != nil {
		return u.explain(cmd, err)
	}
	u.withdraw(cmd, a, repo, order, done)
	return printUndone(a, done, "")
}

// withdraw takes back the announcement of the restore that is undone. One of all members at
// once was not announced to other hosts.
func (u *undoFlags) withdraw(cmd *cobra.Command, a *app, repo *repoFlags, order restoreOrder, d *undo.Done) {
	if order.site.OutputDir == "" {
		d.Notes = append(d.Notes, "undo all members, or none: one with old data and one with restored data never form a "+
			"cluster. If other members were restored, undo that on their hosts, too")
		newWithdrawal(cmd, a, repo, d, order.dryRun).note(cmd.Context(), d)
		return
	}
	d.Notes = append(d.Notes, backedUp)
}

// again is an undo that finds nothing to put back. It may be given again, to take back an
// announcement.
func (u *undoFlags) again(cmd *cobra.Command, a *app, repo *repoFlags, order restoreOrder, missing error) error {
	dir, err := publish.Resolve(order.site.DataDir)
	if err != nil {
		return missing
	}
	w := &withdrawal{app: a, cmd: cmd, repo: repo, dirs: []string{dir}, dry: order.dryRun}
	done, err := w.late(cmd.Context(), missing)
	if err != nil {
		return u.explain(cmd, err)
	}
	return printUndone(a, done, "The old data was put back before")
}

// finish completes an undo that was interrupted. It reports false if none was.
func (u *undoFlags) finish(cmd *cobra.Command, a *app, repo *repoFlags, order restoreOrder) (bool, error) {
	done, err := undo.Finish(cmd.Context(), undo.Request{Site: order.site, Old: u.old})
	if err != nil || done == nil {
		return false, u.explain(cmd, err)
	}
	u.withdraw(cmd, a, repo, order, done)
	return true, printUndone(a, done, "Finished the interrupted undo")
}

// explain adds to an error the commands that can be run in place of this one.
func (u *undoFlags) explain(cmd *cobra.Command, err error) error {
	var (
		interrupted *restore.InterruptedError
		ambiguous   *undo.AmbiguousError
	)
	switch {
	case errors.As(err, &interrupted):
		return withHints(err, interruptedHints(interrupted)...)
	case errors.As(err, &ambiguous):
		var hints, idle []string
		cmd.Flags().Visit(func(f *pflag.Flag) { // given by hand, they are refused
			if f.Annotations[fromEnv] != nil {
				idle = append(idle, f.Name)
			}
		})
		for i, old := range ambiguous.Olds {
			what := "the data before the last restore"
			if i > 0 {
				what = "that of " + old.Stamp
			}
			hints = append(hints, "to put back "+what+": "+commandWith(cmd, idle, "--old-data="+old.Stamp))
		}
		return withHints(err, hints...)
	}
	return explainUnmoved(err)
}

func printUndoPlan(a *app, d *undo.Done) error {
	if printed, err := a.document(kindUndoPlan, d); printed {
		return err
	}
	for _, t := range d.Targets {
		fmt.Fprintf(a.stdout, "Would put %s back to %s, and move what is there now aside\n",
			strings.Join(t.PutBack, " and "), places(t))
	}
	return printNotes(a.stdout, d)
}

func printUndone(a *app, d *undo.Done, finished string) error {
	if printed, err := a.document(kindUndo, d); printed {
		return err
	}
	if finished != "" {
		fmt.Fprintln(a.stdout, finished)
	}
	for _, t := range d.Targets {
		fmt.Fprintf(a.stdout, "Put the old data of %s back to %s\n", d.Time, places(t))
		for _, dir := range t.RestoredData {
			fmt.Fprintf(a.stdout, "The restored data is in %s\n", dir)
		}
	}
	return printNotes(a.stdout, d)
}

func printNotes(out io.Writer, d *undo.Done) error {
	for _, n := range d.Notes {
		if _, err := fmt.Fprintf(out, "Note: %s\n", n); err != nil {
			return err
		}
	}
	return nil
}

func places(t undo.Target) string {
	if t.WALDir == "" {
		return shellquote.Join(t.DataDir)
	}
	return shellquote.Join(t.DataDir) + " and " + shellquote.Join(t.WALDir)
}
