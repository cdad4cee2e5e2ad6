package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/codec"
	"github.com/etcd-backupd/backupd/internal/location"
	"github.com/etcd-backupd/backupd/internal/members/from"
	"github.com/etcd-backupd/backupd/internal/repository/choice"
	"github.com/etcd-backupd/backupd/internal/restore"
	"github.com/etcd-backupd/backupd/internal/restore/undo"
	"github.com/etcd-backupd/backupd/internal/snapshot"
)

type restoreOptions struct {
	repo         repoFlags
	plan         planFlag
	identity     identityFlag
	target       targetFlags
	from         fromFlags
	allMembers   bool
	outputDir    string
	allowSuspect bool
	finish       bool
	abort        bool
	beginNew     bool
	undo         undoFlags
	empty        emptyFlags
}

const finishHelp = `Everything is checked before anything is touched. Directories are built beside their
targets and renamed into place at the end. If the command is killed at any moment, the
same command finishes the work. Another restore to the same directory is refused then;
--finish finishes the interrupted one, and needs no snapshot for it. While nothing has
been moved yet, --abort gives it up instead.

`

func newRestoreCommand(a *app) *cobra.Command {
	var o restoreOptions
	cmd := &cobra.Command{
		Use:   "restore [--repo REPO] ID|latest --name NAME --data-dir DIR | --from FILE",
		Short: "Restore a snapshot to etcd data directories",
		Long: `Restore a snapshot to etcd data directories.

The members are those of --initial-cluster or, without it, those that the snapshot
records: "restore latest --name m1 --data-dir DIR" just works. Every restore gets a
fresh cluster token, so old members can never join the new cluster by mistake. To
restore members on different hosts, run this on the first one, and then on the others
the commands that it prints, with the directories of each host. The token says of which
restore it is: with it another snapshot, other changes or other members are refused
(exit code 6). --all-members makes all directories here, from one download: in --output-dir,
or, if it is left out, where --plan has them.

--from FILE takes the name, the folders and the owner of this host's member from the file
that starts etcd here, so that nothing has to be copied by hand: a systemd unit, its
environment file, a start script, a program of supervisord, etcd's own YAML
configuration, the manifest of a static pod, a StatefulSet, a docker run line, a compose
file. A line that is not understood is refused (exit code 78), and never guessed. Who is in
the cluster is what the snapshot says; if the files say something else, --members chooses.
--from-snapshot takes these files as they were when the snapshot was taken, if --companion-from
or companions.from has stored them with it: then nothing is needed of the old host. A snapshot
mostly has those of one host. --files-of ID takes those of another one out of another snapshot
of the cluster; the data is that of the snapshot that is restored. Where they are missing, the
newest snapshot of each host that has some is named. If the snapshot has those of another host,
and another one has those of this host, --name NAME or --files-of says who is restored here.

--plan FILE restores what "backupd plan" has decided and written: repository, snapshot,
members, token and changes come from the file. Flags that contradict it are refused.

The alarms NOSPACE of old members are cleared, and --clear-alarms clears CORRUPT ones, too.

` + latestHelp + `If the latest snapshot is suspect or damaged, or if nobody can know which history is the
present one, the restore is refused (exit code 6), and the commands for the snapshots
that can be restored are printed. The newest may be that of a cluster that came back
empty.

Clients of the old cluster may have seen revisions that are lost, and wait for them for
ever. So the revision is bumped, as by --bump-revision and --mark-compacted of etcdutl:
to 1,000,000,000 above the newest revision that the repository has seen of the cluster.
The plan says why. --bump-revision=N bumps by N, and 0 turns it off.

A restore from the repository announces the new cluster there, so that its backups are
accepted as the present history: it creates <cluster>/timelines/cluster-<id>.json. If it
may not, it warns and prints the command that does so.

` + begunHelp + aliveHelp + emptyHelp + finishHelp + undoHelp + exitHelp,
		Example: `  backupd restore --repo s3://backups/etcd latest --name m1 --data-dir /var/lib/etcd --dry-run
  backupd restore --repo s3://backups/etcd latest --name m1 --data-dir /var/lib/etcd --identity key.txt
  backupd restore --repo s3://backups/etcd latest --from /etc/systemd/system/etcd.service
  backupd restore --repo s3://backups/etcd 20261120T101500Z --all-members --output-dir /srv/restored
  backupd restore --repo file:///backups latest --name new --data-dir /var/lib/etcd \
    --initial-cluster new=http://10.0.0.9:2380
  backupd restore --finish --data-dir /var/lib/etcd
  backupd restore --undo --data-dir /var/lib/etcd
  backupd restore --plan plan.yaml --name m1 --data-dir /var/lib/etcd
  backupd restore --if-empty --plan plan.yaml --name "$HOSTNAME" --data-dir /var/lib/etcd`,
		Args: func(cmd *cobra.Command, args []string) error {
			if o.finish || o.abort || o.undo.set || o.plan.file != "" {
				return nil // they name no snapshot
			}
			return oneReference(cmd, args)
		},
		ValidArgsFunction: completeIDs(&o.repo),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runRestore(cmd, a, &o, args)
		},
	}
	o.repo.register(cmd)
	registerConfigured(cmd)
	o.repo.registerTimeline(cmd, latestOfTimeline)
	o.identity.register(cmd)
	o.target.register(cmd)
	o.target.registerAutoBump(cmd)
	o.from.register(cmd)
	o.from.registerSnapshot(cmd, &o.repo)
	o.plan.register(cmd)
	f := cmd.Flags()
	f.StringVar(&o.target.name, "name", "", "name of the member to restore")
	f.BoolVar(&o.allMembers, "all-members", false,
		"restore every member, each into a folder of --output-dir, or to its place in the plan")
	f.StringVar(&o.outputDir, "output-dir", "", "folder for --all-members")
	f.BoolVar(&o.allowSuspect, "allow-suspect", false, "restore a suspect snapshot: its content is in doubt")
	f.BoolVar(&o.finish, "finish", false, "only finish the restore to --data-dir or --output-dir that was interrupted")
	f.BoolVar(&o.abort, "abort", false,
		"give up the restore to --data-dir or --output-dir that was interrupted, if it has moved nothing yet")
	f.BoolVar(&o.beginNew, "new", false,
		"begin a restore, also by a plan or with a token, although another one was begun within a day")
	o.undo.register(cmd)
	o.empty.register(cmd)
	mustRegister(cmd.MarkFlagDirname("output-dir"))
	mustRegister(cmd.RegisterFlagCompletionFunc("name", completeMembers(&o.repo)))
	// This flag is about a file's trailer. Stored bytes are always verified.
	mustRegister(f.MarkHidden("skip-hash-check"))
	annotate(f, "skip-hash-check", noEffect)
	return cmd
}

// check refuses flags that do not go together.
func (o *restoreOptions) check(cmd *cobra.Command, args []string) error {
	switch {
	case o.finish && o.abort:
		return &usageError{errors.New("--finish and --abort exclude each other")}
	case o.undo.set:
		return o.checkFolder(cmd, args, "undo", append(pathFlags(), "wal-dir", "old-data", "dry-run", "cluster", "config")...)
	case cmd.Flags().Changed("old-data"):
		return &usageError{errors.New("--old-data goes with --undo")}
	case o.finish:
		return o.checkFolder(cmd, args, "finish")
	case o.abort:
		return o.checkFolder(cmd, args, "abort")
	case o.outputDir != "" && !o.allMembers, o.allMembers && o.outputDir == "" && o.plan.file == "":
		return &usageError{errors.New("--all-members and --output-dir go together, or --all-members and --plan")}
	case o.allMembers && (o.target.name != "" || o.target.dataDir != "" || o.target.walDir != ""):
		return &usageError{errors.New(
			"--all-members makes all directories in --output-dir, or where the plan says: leave --name, --data-dir and " +
				"--wal-dir out")}
	case o.from.inSnapshots() && len(args) != 1 && o.plan.file == "":
		return &usageError{errors.New("--from-snapshot and --files-of go with a snapshot: its id, or latest")}
	case o.from.snapshot && len(o.from.filesOf) > 0, len(o.from.filesOf) > 1:
		return &usageError{errors.New("the member here has the files of one host: give --from-snapshot, or --files-of once")}
	case !o.allMembers && o.target.name == "" && !o.from.given():
		return &usageError{errors.New("no member: give --name NAME --data-dir DIR, or --from FILE, or " +
			"--all-members --output-dir DIR")}
	}
	if err := o.empty.check(cmd, o, args); err != nil {
		return err
	}
	return o.from.check(&o.target)
}

// readFiles checks the flags and reads the files of --from, which stand for some of them.
func (o *restoreOptions) readFiles(cmd *cobra.Command, a *app, args []string) (*from.Found, error) {
	if err := o.check(cmd, args); err != nil {
		return nil, err
	}
	if o.from.inSnapshots() {
		if err := o.readStored(cmd, a, args); err != nil {
			return nil, err
		}
	}
	chosen := o.target.name != "" || o.allMembers
	found, err := o.from.read(&o.target, o.allMembers)
	if err == nil && !chosen && found != nil {
		err = o.from.checkHost(cmd, args, found)
	}
	return found, err
}

// readStored reads the files out of the snapshot that is restored, or beside it.
func (o *restoreOptions) readStored(cmd *cobra.Command, a *app, args []string) error {
	ids, err := o.identity.read(a)
	if err != nil {
		return err
	}
	allow := choice.Allow{Suspect: o.allowSuspect}
	if o.plan.file == "" {
		args[0], err = o.from.fromStored(cmd, a, &o.repo, args[0], allow, ids)
		return err
	}
	p, err := readPlan(o.plan.file)
	if err != nil {
		return err
	}
	in := o.repo // what is told otherwise is refused later
	in.cluster, in.timeline, allow.Suspect = p.Stored.Cluster, "", p.Stored.AllowSuspect
	_, err = o.from.fromStored(cmd, a, &in, string(p.Stored.Snapshot), allow, ids)
	return err
}

// checkFolder refuses everything but a folder for the flag that finishes a restore or gives it
// up: it was asked for all else, and nothing of that can be changed.
func (o *restoreOptions) checkFolder(cmd *cobra.Command, args []string, flag string, with ...string) error {
	var errs []error
	if len(args) > 0 || (o.target.dataDir == "") == (o.outputDir == "") {
		errs = append(errs, fmt.Errorf("--%s takes no snapshot, and --data-dir DIR or --output-dir DIR", flag))
	}
	cmd.Flags().Visit(func(f *pflag.Flag) {
		its := slices.Contains(append(with, flag, "data-dir", "output-dir"), f.Name)
		if !its && f.Annotations[fromEnv] == nil && f.Annotations[fromEtcdctl] == nil {
			errs = append(errs, fmt.Errorf("--%s and --%s exclude each other: "+
				"the restore is taken as it was asked for", flag, f.Name))
		}
	})
	if len(errs) > 0 {
		return &usageError{errors.Join(errs...)}
	}
	return nil
}

func runRestore(cmd *cobra.Command, a *app, o *restoreOptions, args []string) error {
	found, err := o.readFiles(cmd, a, args)
	if err != nil {
		return err
	}
	if err := o.target.markBump(cmd); err != nil {
		return err
	}
	if err := o.plan.read(cmd, o, args); err != nil {
		return err
	}
	order, err := o.target.order()
	if err != nil {
		return err
	}
	o.plan.order(&order)
	order.site.OutputDir = o.outputDir
	if err := o.plan.allPlaces(o, &order); err != nil {
		return err
	}
	if err := checkStanding(order.site); err != nil {
		return err
	}
	if o.empty.tls, err = o.empty.readTLS(); err != nil {
		return err
	}
	switch {
	case o.undo.set:
		return o.undo.run(cmd, a, &o.repo, order)
	case o.finish:
		return o.finishAny(cmd, a, order)
	case o.abort:
		return abort(a, order.site)
	case o.empty.set:
		if done, err := o.empty.look(cmd, a, order, o.plan.plan); done || err != nil {
			return err
		}
	}
	ids, err := o.identity.read(a)
	if err != nil {
		return err
	}
	o.keepFiles(a, &order)
	noteRelative(&order.site)
	if err := describe(&order.site, found); err != nil {
		return err
	}
	if err := o.plan.own(&order); err != nil {
		return err
	}
	o.from.compare(&order.site, found)
	job := &restoreJob{cmd: cmd, app: a, restoreOrder: order, found: found, beginNew: o.beginNew, empty: o.empty}
	if err := o.choose(job, args, ids); err != nil {
		return job.explain(err)
	}
	if err := o.from.decideMembers(job); err != nil {
		return err
	}
	return job.run()
}

// keepFiles keeps all that the restore, and the next one, needs to get at the snapshot.
func (o *restoreOptions) keepFiles(a *app, order *restoreOrder) {
	if where, err := location.Parse(o.repo.repo); err == nil {
		order.keep("the repository", where.Path)
	}
	for _, file := range o.identity.files {
		order.keep("an age identity", file)
	}
	for _, s := range o.repo.options.Settings() {
		if strings.HasSuffix(s.Key, "-file") {
			order.keep("the file of --"+s.Section+"-"+s.Key, *s.Value)
		}
	}
	for _, name := range []string{ // the SDK reads them
		"AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE", "AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_CA_BUNDLE",
	} {
		order.keep("the file of "+name, os.Getenv(name))
	}
	order.keep("the configuration", a.config)
	for _, file := range o.from.files {
		order.keep("a file of --from", file)
	}
	order.keep("the plan", o.plan.file)
	order.keepSpool()
}

// choose finds the snapshot and makes it the source of the job.
func (o *restoreOptions) choose(job *restoreJob, args []string, ids codec.Identities) error {
	ctx := job.cmd.Context()
	repo, err := o.repo.openToRead(ctx, job.app)
	if err != nil {
		return err
	}
	if err := o.plan.checkRepository(repo.ID(), o.repo.repo); err != nil {
		return err
	}
	ref, err := o.repo.refer(ctx, repo, o.plan.snapshot(args))
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
	o.plan.name(job)
	m, err := in.Manifest(ctx, item)
	if err != nil {
		return err
	}
	job.stored.manifest, job.src = m, snapshot.NewSource(in, m, ids)
	return decideBump(ctx, job)
}

// finishAny completes whatever restore was interrupted there. Only an undo has use for a repository.
func (o *restoreOptions) finishAny(cmd *cobra.Command, a *app, order restoreOrder) error {
	switch is, err := undo.Interrupted(order.site); {
	case err != nil:
		return err
	case is:
		if err := configureUndo(a, cmd); err != nil { // a variable is wrong: the data comes back all the same
			a.log.slog.Warn("the undo knows no repository by the configuration", "err", err)
		}
		_, err := o.undo.finish(cmd, a, &o.repo, order)
		return err
	}
	done, err := restore.FinishAny(cmd.Context(), order.site)
	if err != nil {
		return explainUnmoved(err)
	}
	if done == nil {
		return noneInterrupted(order.site)
	}
	return printFinished(a, *done)
}

func noneInterrupted(site restore.Site) error {
	return &undo.AbsentError{Text: fmt.Sprintf("no restore to %s%s was interrupted", site.DataDir, site.OutputDir)}
}

// abort gives up a restore that was interrupted before it moved anything.
func abort(a *app, site restore.Site) error {
	given, err := restore.Abort(site)
	switch {
	case errors.As(err, new(*backup.RefusedError)):
		return withHints(err, "to finish it: "+finishCommand(site.DataDir, site.OutputDir))
	case err != nil:
		return err
	case given == nil:
		return noneInterrupted(site)
	}
	if printed, err := a.document(kindRestoreAborted, given); printed {
		return err
	}
	fmt.Fprintf(a.stdout, "Gave up the interrupted restore of %s, and nothing has changed\n", given.Source)
	return nil
}
