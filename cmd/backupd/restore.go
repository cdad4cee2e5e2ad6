package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/kballard/go-shellquote"
	"github.com/spf13/cobra"

	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/restore"
	"github.com/etcd-backupd/backupd/internal/snapshot"
)

type restoreOptions struct {
	repo         repoFlags
	identity     identityFlag
	target       targetFlags
	allMembers   bool
	outputDir    string
	allowSuspect bool
}

func newRestoreCommand(a *app) *cobra.Command {
	var o restoreOptions
	cmd := &cobra.Command{
		Use:   "restore --repo REPO [ID|latest] --name NAME --data-dir DIR",
		Short: "Restore a snapshot to etcd data directories",
		Long: `Restore a snapshot to etcd data directories.

The members are those of --initial-cluster or, without it, those that the snapshot
records: "restore latest --name m1 --data-dir DIR" just works. Every restore gets a
fresh cluster token, so old members can never join the new cluster by mistake. To
restore members on different hosts, run this on the first one, and then on the others
with the snapshot and the token that it prints. --all-members makes all directories
here, from one download.

` + latestHelp + `If the latest snapshot is suspect or damaged, or if nobody can know which history came
last, the restore is refused (exit code 6), and the commands for the snapshots that can
be restored are printed.

Everything is checked before anything is touched. Directories are built beside their
targets and renamed into place at the end. If the command is killed at any moment, the
same command finishes the work.

` + exitHelp,
		Example: `  backupd restore --repo s3://backups/etcd latest --name m1 --data-dir /var/lib/etcd --dry-run
  backupd restore --repo s3://backups/etcd latest --name m1 --data-dir /var/lib/etcd --identity key.txt
  backupd restore --repo s3://backups/etcd 20261120T101500Z --all-members --output-dir /srv/restored
  backupd restore --repo file:///backups latest --name new --data-dir /var/lib/etcd \
    --initial-cluster new=http://10.0.0.9:2380`,
		Args:              optionalID,
		ValidArgsFunction: completeIDs(a, &o.repo),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runRestore(cmd, a, o, args)
		},
	}
	o.repo.register(cmd)
	o.identity.register(cmd)
	o.target.register(cmd)
	f := cmd.Flags()
	f.StringVar(&o.target.name, "name", "", "name of the member to restore")
	f.BoolVar(&o.allMembers, "all-members", false, "restore every member, each into a folder of --output-dir")
	f.StringVar(&o.outputDir, "output-dir", "", "folder for --all-members")
	f.BoolVar(&o.allowSuspect, "allow-suspect", false, "restore a suspect snapshot: its content is in doubt")
	annotate(f, "allow-suspect", flagOnly)
	mustRegister(cmd.MarkFlagDirname("output-dir"))
	// This flag is about a file's trailer. Stored bytes are always verified.
	mustRegister(f.MarkHidden("skip-hash-check"))
	annotate(f, "skip-hash-check", noEffect)
	return cmd
}

func (o *restoreOptions) check() error {
	switch {
	case o.allMembers != (o.outputDir != ""):
		return &usageError{errors.New("--all-members and --output-dir go together")}
	case o.allMembers && (o.target.name != "" || o.target.dataDir != "" || o.target.walDir != ""):
		return &usageError{errors.New(
			"--all-members makes all directories in --output-dir: leave --name, --data-dir and --wal-dir out")}
	case !o.allMembers && o.target.name == "":
		return &usageError{errors.New("no member: give --name NAME --data-dir DIR, or --all-members --output-dir DIR")}
	}
	return nil
}

func runRestore(cmd *cobra.Command, a *app, o restoreOptions, args []string) error {
	ctx := cmd.Context()
	if err := o.check(); err != nil {
		return err
	}
	ids, err := o.identity.read()
	if err != nil {
		return err
	}
	order, err := o.target.order()
	if err != nil {
		return err
	}
	order.site.OutputDir = o.outputDir
	finished, err := finishInterrupted(a, order)
	if err != nil {
		return err
	}
	repo, err := o.repo.openExisting(ctx, a)
	if err != nil {
		return err
	}
	allow := repository.Allow{Suspect: o.allowSuspect}
	in, item, err := repo.Choose(ctx, o.repo.cluster, reference(args), allow, time.Now())
	if err != nil {
		return o.repo.explain(cmd, err)
	}
	m, err := in.Manifest(ctx, item)
	if err != nil {
		return err
	}
	src := snapshot.NewSource(in, m, ids)
	if isDone(finished, src) {
		return nil
	}
	return restoreFrom(ctx, a, src, order)
}

// finishInterrupted completes an earlier restore into the same target that was
// killed in its last step. It returns nil if there is none.
func finishInterrupted(a *app, o restoreOrder) (*restore.Finished, error) {
	if o.dryRun {
		return nil, nil
	}
	f, err := restore.FinishInterrupted(o.site, o.request)
	if err != nil || f == nil {
		return nil, err
	}
	fmt.Fprintf(a.stdout, "Finished the interrupted restore of %s\n", f.Source)
	fmt.Fprintf(a.stdout, "  in place: %s\n  cluster token: %s\n", strings.Join(f.Dirs, ", "), f.Token)
	return f, nil
}

// isDone reports whether the restore that was just finished is the one that is
// requested now.
func isDone(f *restore.Finished, src restore.Source) bool {
	return f != nil && f.SameRequest && f.Source == src.About().Name
}

// restoreFrom plans, shows the plan and, unless it is a dry run, executes it.
func restoreFrom(ctx context.Context, a *app, src restore.Source, o restoreOrder) error {
	p, err := restore.NewPlan(src.About(), o.request)
	if err != nil {
		return err
	}
	work, err := o.site.Check(ctx, p)
	if err != nil {
		return err
	}
	if o.dryRun {
		_, err := work.WriteTo(a.stdout)
		return err
	}
	if _, err := work.WriteTo(a.progress); err != nil {
		return err
	}
	err = work.Execute(ctx, src, restore.Options{
		EtcdLog: a.log.zap, Progress: a.progress.report, InitialMmapBytes: o.mmapBytes,
	})
	if err != nil {
		return err
	}
	a.progress.stop()
	return printRestored(a, work)
}

func printRestored(a *app, w *restore.Work) error {
	if a.global.writeOut == "json" {
		return printJSON(a.stdout, kindRestore, w.Summary())
	}
	for _, t := range w.Targets {
		fmt.Fprintf(a.stdout, "Restored member %s to %s\n", t.Member.Name, t.DataDir)
	}
	fmt.Fprintf(a.stdout, "Cluster token: %s\n", w.Plan.Token)
	for _, t := range w.Targets {
		start := []string{"etcd", "--name", t.Member.Name, "--data-dir", t.DataDir}
		if t.WALDir != "" {
			start = append(start, "--wal-dir", t.WALDir)
		}
		urls := strings.Join(t.Member.PeerURLs, ",")
		start = append(start, "--initial-advertise-peer-urls", urls, "--listen-peer-urls", urls)
		fmt.Fprintf(a.stdout, "Start it with its usual flags, as: %s ...\n", shellquote.Join(start...))
	}
	if len(w.Targets) < len(w.Plan.Members) {
		fmt.Fprintf(a.stdout, "Restore the other members (of %s) with the same snapshot and\n  --initial-cluster-token %s\n",
			w.Plan.InitialCluster(), w.Plan.Token)
	}
	return nil
}
