package main

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/etcd-backupd/backupd/internal/codec"
	"github.com/etcd-backupd/backupd/internal/repository/choice"
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
	finish       bool
}

func newRestoreCommand(a *app) *cobra.Command {
	var o restoreOptions
	cmd := &cobra.Command{
		Use:   "restore --repo REPO ID|latest --name NAME --data-dir DIR",
		Short: "Restore a snapshot to etcd data directories",
		Long: `Restore a snapshot to etcd data directories.

The members are those of --initial-cluster or, without it, those that the snapshot
records: "restore latest --name m1 --data-dir DIR" just works. Every restore gets a
fresh cluster token, so old members can never join the new cluster by mistake. To
restore members on different hosts, run this on the first one, and then on the others
the commands that it prints, with the directories of each host. The token says of which
restore it is: with it another snapshot, other changes or other members are refused
(exit code 6). --all-members makes all directories here, from one download.

` + latestHelp + `If the latest snapshot is suspect or damaged, or if nobody can know which history is the
present one, the restore is refused (exit code 6), and the commands for the snapshots
that can be restored are printed. The newest may be that of a cluster that came back
empty.

A restore from the repository announces the new cluster there, so that its backups are
accepted as the present history: it creates <cluster>/timelines/cluster-<id>.json. If it
may not, it warns and prints the command that does so.

Everything is checked before anything is touched. Directories are built beside their
targets and renamed into place at the end. If the command is killed at any moment, the
same command finishes the work. Another restore to the same directory is refused then;
--finish finishes the interrupted one, and needs no snapshot for it.

` + exitHelp,
		Example: `  backupd restore --repo s3://backups/etcd latest --name m1 --data-dir /var/lib/etcd --dry-run
  backupd restore --repo s3://backups/etcd latest --name m1 --data-dir /var/lib/etcd --identity key.txt
  backupd restore --repo s3://backups/etcd 20261120T101500Z --all-members --output-dir /srv/restored
  backupd restore --repo file:///backups latest --name new --data-dir /var/lib/etcd \
    --initial-cluster new=http://10.0.0.9:2380
  backupd restore --finish --data-dir /var/lib/etcd`,
		Args: func(cmd *cobra.Command, args []string) error {
			if o.finish {
				return nil // it names no snapshot
			}
			return oneReference(cmd, args)
		},
		ValidArgsFunction: completeIDs(a, &o.repo),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runRestore(cmd, a, o, args)
		},
	}
	o.repo.register(cmd)
	o.repo.registerTimeline(cmd, latestOfTimeline)
	o.identity.register(cmd)
	o.target.register(cmd)
	f := cmd.Flags()
	f.StringVar(&o.target.name, "name", "", "name of the member to restore")
	f.BoolVar(&o.allMembers, "all-members", false, "restore every member, each into a folder of --output-dir")
	f.StringVar(&o.outputDir, "output-dir", "", "folder for --all-members")
	f.BoolVar(&o.allowSuspect, "allow-suspect", false, "restore a suspect snapshot: its content is in doubt")
	f.BoolVar(&o.finish, "finish", false, "only finish the restore to --data-dir or --output-dir that was interrupted")
	annotate(f, "allow-suspect", flagOnly)
	annotate(f, "finish", flagOnly)
	mustRegister(cmd.MarkFlagDirname("output-dir"))
	// This flag is about a file's trailer. Stored bytes are always verified.
	mustRegister(f.MarkHidden("skip-hash-check"))
	annotate(f, "skip-hash-check", noEffect)
	return cmd
}

// check refuses flags that do not go together.
func (o *restoreOptions) check(cmd *cobra.Command, args []string) error {
	switch {
	case o.finish:
		return o.checkFinish(cmd, args)
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

// checkFinish refuses everything but a folder: the interrupted restore was asked for
// all else, and nothing of that can be changed.
func (o *restoreOptions) checkFinish(cmd *cobra.Command, args []string) error {
	var errs []error
	if len(args) > 0 || (o.target.dataDir == "") == (o.outputDir == "") {
		errs = append(errs, errors.New("--finish takes no snapshot, and --data-dir DIR or --output-dir DIR"))
	}
	cmd.Flags().Visit(func(f *pflag.Flag) {
		its := slices.Contains([]string{"finish", "data-dir", "output-dir"}, f.Name)
		if !its && f.Annotations[fromEnv] == nil && f.Annotations[fromEtcdctl] == nil {
			errs = append(errs, fmt.Errorf("--finish and --%s exclude each other: "+
				"the interrupted restore is finished as it was asked for", f.Name))
		}
	})
	if len(errs) > 0 {
		return &usageError{errors.Join(errs...)}
	}
	return nil
}

func runRestore(cmd *cobra.Command, a *app, o restoreOptions, args []string) error {
	if err := o.check(cmd, args); err != nil {
		return err
	}
	order, err := o.target.order()
	if err != nil {
		return err
	}
	order.site.OutputDir = o.outputDir
	if o.finish {
		return finishAny(a, order.site)
	}
	ids, err := o.identity.read()
	if err != nil {
		return err
	}
	job := &restoreJob{cmd: cmd, app: a, restoreOrder: order}
	if err := o.choose(job, args, ids); err != nil {
		return job.explain(err)
	}
	return job.run()
}

// choose finds the snapshot and makes it the source of the job.
func (o *restoreOptions) choose(job *restoreJob, args []string, ids codec.Identities) error {
	ctx := job.cmd.Context()
	repo, err := o.repo.openExisting(ctx, job.app)
	if err != nil {
		return err
	}
	ref, err := o.repo.refer(ctx, repo, args[0])
	if err != nil {
		return o.repo.explain(job.cmd, repo, err)
	}
	allow := choice.Allow{Suspect: o.allowSuspect}
	in, item, err := choice.ChooseAnywhere(ctx, repo, o.repo.cluster, ref, allow, time.Now())
	if err != nil {
		return o.repo.explain(job.cmd, repo, err)
	}
	job.stored = &stored{in: in, item: item}
	if err := job.noteTime(ctx); err != nil {
		return err
	}
	job.ref, job.naming = string(item.ID), []string{"--cluster=" + in.Name()}
	m, err := in.Manifest(ctx, item)
	if err != nil {
		return err
	}
	job.stored.manifest, job.src = m, snapshot.NewSource(in, m, ids)
	return nil
}

// finishAny completes whatever restore was interrupted there.
func finishAny(a *app, site restore.Site) error {
	done, err := restore.FinishAny(site)
	if err != nil {
		return err
	}
	if done == nil {
		return fmt.Errorf("no restore to %s%s was interrupted: %w", site.DataDir, site.OutputDir, fs.ErrNotExist)
	}
	return printFinished(a, *done)
}
