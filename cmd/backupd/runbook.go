package main

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/members/from"
	"github.com/etcd-backupd/backupd/internal/restore"
	"github.com/etcd-backupd/backupd/internal/runbook"
)

type runbookOptions struct {
	plan, output string
	from         []string
}

func newRunbookCommand(a *app) *cobra.Command {
	var o runbookOptions
	cmd := &cobra.Command{
		Use:   "runbook --plan FILE [--from FILE ...] [--output FILE]",
		Short: "Write down every step of a restore by a plan, with the commands of each host",
		Long: `Write down every step of a restore by a plan, with the commands of each host: stop the API
servers and the members, wait until their ports are closed, restore, start, verify, look at
what Kubernetes holds that is out of date, take a new backup, undo. It is text for a terminal,
and Markdown.

How a member is started, where its data is and who owns it is in the plan, if it was made with
--from; with --from here it is taken from more files that start etcd: units of systemd,
programs of supervisord, manifests of kubeadm, StatefulSets, containers. Copy those of the
other hosts to this one. For a host of which no file was given the steps are those of the
first that is known, marked as assumed; what not even that says stands in capitals, and a
shell refuses the command until it is set.

It also says how old the snapshot is, who has to bring which key if the snapshot or objects of
Kubernetes are encrypted, and has the notes of the plan. It holds no secret. Nothing is changed
or asked, here or anywhere.`,
		Example: `  backupd runbook --plan plan.yaml
  backupd runbook --plan plan.yaml --output runbook.md
  backupd plan latest --output plan.yaml --from m1/etcd.service --from m2/etcd.service
  backupd runbook --plan plan.yaml --from m3/etcd.service`,
		Args: arguments(0, "no argument"),
		RunE: func(cmd *cobra.Command, _ []string) error { return runRunbook(a, o) },
	}
	f := cmd.Flags()
	f.StringVar(&o.plan, "plan", "", "the `file` of the plan")
	f.StringArrayVar(&o.from, "from", nil, "a file that starts etcd on some host (may be repeated)")
	f.StringVar(&o.output, "output", "", "file to write, which must not be there (default: standard output)")
	mustRegister(cmd.MarkFlagFilename("plan", "yaml", "yml"))
	mustRegister(cmd.MarkFlagFilename("from"))
	mustRegister(cmd.MarkFlagFilename("output", "md"))
	return cmd
}

func runRunbook(a *app, o runbookOptions) error {
	if o.plan == "" {
		return &usageError{errors.New("no plan: give --plan FILE, which 'backupd plan' has written")}
	}
	p, err := readPlan(o.plan)
	if err != nil {
		return err
	}
	about := runbook.Options{Now: time.Now()}
	if about.File, err = filepath.Abs(o.plan); err != nil {
		return err
	}
	if len(o.from) > 0 {
		found, err := from.Read(o.from, from.Options{All: true})
		if err != nil {
			return err
		}
		if err := placesBeside(&about, p, found); err != nil {
			return err
		}
	}
	text, err := runbook.Write(p, about)
	if err != nil {
		return err
	}
	if o.output == "" {
		_, err := io.WriteString(a.stdout, text)
		return err
	}
	if err := writeNew(o.output, []byte(text)); err != nil {
		return err
	}
	_, err = fmt.Fprintf(a.stdout, "Wrote the runbook %s\n", o.output)
	return err
}

// placesBeside takes over what the files say of members of the plan. It refuses what the plan
// says otherwise: a restore does what the plan says.
func placesBeside(about *runbook.Options, p *restore.Plan, found *from.Found) error {
	for _, what := range found.Compare(p.Members) {
		about.Notes = append(about.Notes, what+": the plan decides, which has "+p.InitialCluster())
	}
	about.Notes = append(about.Notes, notesOf(found)...)
	for _, l := range found.All {
		planned := p.PlaceOf(l.Place.Member)
		if dir := l.Place.DataDir; planned.DataDir != "" && dir != "" &&
			(dir != planned.DataDir || l.Place.WALDir != planned.WALDir) {
			return backup.WithHint(&backup.RefusedError{Reason: fmt.Sprintf(
				"%s has the data of member %s in %s, WAL %q, and the plan in %s, WAL %q", l.Of, l.Place.Member, dir,
				l.Place.WALDir, planned.DataDir, planned.WALDir)}, "make another plan, for all members: backupd plan")
		}
		about.Places = append(about.Places, l.Place)
	}
	return nil
}
