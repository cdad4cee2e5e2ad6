package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/kballard/go-shellquote"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/disk"
	"github.com/etcd-backupd/backupd/internal/rescue"
	"github.com/etcd-backupd/backupd/internal/restore"
	"github.com/etcd-backupd/backupd/internal/restore/inuse"
)

type rescueOptions struct {
	dataDirs, walDirs []string
	uncommitted       string
	withoutWAL        bool
	output            string
	copies            spoolFlags
	target            targetFlags
	from              fromFlags
	allMembers        bool
	outputDir         string
}

func newRescueCommand(a *app) *cobra.Command {
	var o rescueOptions
	cmd := &cobra.Command{
		Use:   "rescue --from-data-dir DIR --output FILE",
		Short: "Make a snapshot of what is left of a cluster that has no backup",
		Long: `Make a snapshot of what is left of a cluster that has lost its quorum and has no
backup: of the data directories of its surviving members.

Each directory is copied, and the copy's write-ahead log is replayed onto the copy's
database, by etcd's own code, as far as any of the survivors shows that its entries were
committed. The survivors are compared, and the one that came furthest is written to
--output: a file as of "etcdctl snapshot save", which "etcdutl snapshot restore" takes,
too. What could not be recovered is said: entries by index and number, requests of the v2
API, damaged and missing logs. Nothing is ever written into the directories of the
survivors. Stop their servers first; they may be mounted read-only.

A member has an entry a moment before it learns that the cluster has committed it. If a log
ends with such entries, nobody can know whether a client was told that they succeeded. Then
the rescue is refused (exit code 6): say --uncommitted=take or --uncommitted=drop.

A directory that has no WAL is refused (exit code 6), too: it is elsewhere, and then --from-wal-dir
names it, or it is lost, and then --without-wal takes the database alone. Acknowledged writes
may be in a WAL only.

Survivors that have diverged, and damaged databases, are refused with exit code 4.

With --name and --data-dir, or --all-members and --output-dir, it goes on with a restore of
the file, as "backupd snapshot restore" does, with its flags, a fresh token and, without
--initial-cluster, the members that the database records. --from FILE takes the name, the
folders and the owner from the file that starts etcd on this host, as "backupd restore" does.
--dry-run does all but write: it rescues, and leaves nothing.

` + exitHelp,
		Example: `  backupd rescue --from-data-dir /var/lib/etcd --output /srv/rescued.db
  backupd rescue --from-data-dir /mnt/m1/etcd --from-data-dir /mnt/m2/etcd --dry-run
  backupd rescue --from-data-dir /mnt/m1/etcd --output /srv/rescued.db \
    --name m1 --data-dir /var/lib/etcd-new --initial-cluster m1=https://10.0.0.1:2380`,
		Args: arguments(0, "no arguments"),
		RunE: func(cmd *cobra.Command, _ []string) error { return runRescue(cmd, a, o) },
	}
	f := cmd.Flags()
	f.StringArrayVar(&o.dataDirs, "from-data-dir", nil,
		"data directory of a surviving member, which is only read; may be given several times")
	f.StringArrayVar(&o.walDirs, "from-wal-dir", nil,
		"WAL directory of the member, if it is not in its data directory; then one for each --from-data-dir")
	f.BoolVar(&o.withoutWAL, "without-wal", false,
		"take the database alone of a member whose WAL is lost, and lose what only the WAL has")
	f.StringVar(&o.uncommitted, "uncommitted", "",
		"take or drop entries at the end of a log that may have been committed or not")
	f.StringVar(&o.output, "output", "", "snapshot file to make")
	o.copies.register(cmd, "copies of the survivors' data")
	o.target.register(cmd)
	o.from.register(cmd)
	f.StringVar(&o.target.name, "name", "", "name of the member to restore")
	f.BoolVar(&o.allMembers, "all-members", false, "restore every member, each into a folder of --output-dir")
	f.StringVar(&o.outputDir, "output-dir", "", "folder for --all-members")
	for _, dir := range []string{"from-data-dir", "from-wal-dir", "output-dir"} {
		mustRegister(cmd.MarkFlagDirname(dir))
	}
	mustRegister(cmd.RegisterFlagCompletionFunc("uncommitted",
		cobra.FixedCompletions([]string{string(rescue.Take), string(rescue.Drop)}, cobra.ShellCompDirectiveNoFileComp)))
	// The file that is restored has its SHA-256.
	mustRegister(f.MarkHidden("skip-hash-check"))
	annotate(f, "skip-hash-check", noEffect)
	return cmd
}

// restores reports whether a restore follows.
func (o *rescueOptions) restores() bool {
	t := o.target
	return o.allMembers || o.outputDir != "" || t.name != "" || t.dataDir != "" || t.walDir != "" ||
		len(o.from.files) > 0
}

// check refuses flags that do not go together.
func (o *rescueOptions) check() error {
	switch {
	case len(o.dataDirs) == 0:
		return &usageError{errors.New("no survivor: give --from-data-dir DIR")}
	case slices.Contains(o.dataDirs, "") || slices.Contains(o.walDirs, ""):
		return &usageError{errors.New("--from-data-dir and --from-wal-dir want a folder")}
	case len(o.walDirs) > 0 && len(o.walDirs) != len(o.dataDirs):
		return &usageError{fmt.Errorf("%d --from-wal-dir for %d --from-data-dir: give one for each, in the same order",
			len(o.walDirs), len(o.dataDirs))}
	case !slices.Contains([]string{"", string(rescue.Take), string(rescue.Drop)}, o.uncommitted):
		return &usageError{fmt.Errorf("--uncommitted %q: want take or drop", o.uncommitted)}
	case o.output == "" && !o.target.dryRun:
		return &usageError{errors.New("no file to make: give --output FILE, or --dry-run")}
	case o.allMembers != (o.outputDir != ""):
		return &usageError{errors.New("--all-members and --output-dir go together")}
	case o.allMembers && (o.target.name != "" || o.target.dataDir != "" || o.target.walDir != ""):
		return &usageError{errors.New(
			"--all-members makes all directories in --output-dir: leave --name, --data-dir and --wal-dir out")}
	case o.restores() && !o.allMembers && len(o.from.files) == 0 && (o.target.name == "" || o.target.dataDir == ""):
		return &usageError{errors.New(
			"to restore: give --name NAME --data-dir DIR, or --from FILE, or --all-members --output-dir DIR")}
	}
	return o.from.check(&o.target)
}

func (o *rescueOptions) folders() (out []rescue.Folder) {
	for i, dir := range o.dataDirs {
		f := rescue.Folder{DataDir: dir}
		if len(o.walDirs) > 0 {
			f.WALDir = o.walDirs[i]
		}
		out = append(out, f)
	}
	return out
}

// checkOutput refuses to replace a file, and to write into the data of a survivor.
func (o *rescueOptions) checkOutput() error {
	if o.output == "" {
		return nil
	}
	if _, err := os.Lstat(o.output); err == nil {
		return backup.WithHint(&backup.RefusedError{Reason: o.output + " exists"}, "give --output a new name")
	}
	for _, dir := range slices.Concat(o.dataDirs, o.walDirs) {
		inside, err := disk.Holds(dir, o.output)
		if err != nil {
			return fmt.Errorf("--output: %w", err)
		}
		if inside {
			return backup.WithHint(&backup.RefusedError{Reason: fmt.Sprintf(
				"%s is in %s, and nothing is written into the data of a survivor", o.output, dir)},
				"give --output a place outside")
		}
	}
	return nil
}

// checkPlace refuses to restore over a survivor, before anything is copied.
func (o *rescueOptions) checkPlace(site restore.Site) error {
	var kept []inuse.Kept
	for _, dir := range slices.Concat(o.dataDirs, o.walDirs) {
		kept = append(kept, inuse.Kept{What: "the data of a survivor", Path: dir})
	}
	err := errors.Join(inuse.Apart("--data-dir", site.DataDir, kept), inuse.Apart("--wal-dir", site.WALDir, kept))
	if err == nil {
		return nil
	}
	words := []string{"backupd", "snapshot", "restore", cmp.Or(o.output, "FILE"), "--replace", "--name=" + site.Name,
		"--data-dir=" + site.DataDir}
	if site.WALDir != "" {
		words = append(words, "--wal-dir="+site.WALDir)
	}
	return withHints(err, "or rescue only the file, without a place to restore to; and when it is safe, this moves the "+
		"survivor's data aside: "+shellquote.Join(words...))
}

func runRescue(cmd *cobra.Command, a *app, o rescueOptions) error {
	if err := o.check(); err != nil {
		return err
	}
	found, err := o.from.read(&o.target, o.allMembers)
	if err != nil {
		return err
	}
	order, err := o.target.order()
	if err != nil {
		return err
	}
	order.site.OutputDir = o.outputDir
	if err := errors.Join(describe(&order.site, found), o.checkOutput(), o.checkPlace(order.site)); err != nil {
		return err
	}
	if err := checkStanding(order.site); err != nil {
		return err
	}
	folder := o.copies.folder()
	work, err := os.MkdirTemp(folder.Path(), "backupd-rescue-")
	if err != nil {
		return fmt.Errorf("make a folder for the copies: %w", err)
	}
	return errors.Join(o.rescueIn(cmd, a, &restoreJob{restoreOrder: order, app: a, found: found}, work),
		rescue.Remove(work))
}

// rescueIn does the work in a folder for the copies.
func (o *rescueOptions) rescueIn(cmd *cobra.Command, a *app, job *restoreJob, work string) error {
	out, err := rescue.Run(cmd.Context(), rescue.Request{
		Folders: o.folders(), Work: work, MinFree: o.copies.minFree.Reserve,
		Uncommitted: rescue.Uncommitted(o.uncommitted), WithoutWAL: o.withoutWAL, Progress: a.progress.report,
	})
	if err != nil {
		return o.explain(cmd, err)
	}
	path := o.output
	if o.target.dryRun {
		path = filepath.Join(work, "rescued.db")
	}
	if err := out.Write(cmd.Context(), path); err != nil {
		return err
	}
	if o.target.dryRun {
		out.File = ""
	}
	a.progress.stop()
	if !o.restores() {
		return printRescued(cmd.Context(), a, out.Report, path)
	}
	writeRescued(a.progress, out.Report)
	return o.restore(cmd, job, out.Report, path)
}

// explain adds what a person can do.
func (o *rescueOptions) explain(cmd *cobra.Command, err error) error {
	var two *rescue.HistoriesError
	var bare *rescue.NoWALError
	switch {
	case errors.As(err, &bare):
		return withHints(err,
			"if it is elsewhere, say where, as DIR2: "+commandWith(cmd, nil, o.walWords(bare)...),
			"if it is lost, this takes the database alone, and loses what only the WAL has: "+
				commandWith(cmd, nil, "--without-wal"))
	case errors.As(err, &two):
		hints := []string{"look at both, and rescue the one that is the cluster's last history, alone"}
		for _, f := range two.Folders {
			args := []string{"--from-data-dir=" + f.DataDir}
			if f.WALDir != "" {
				args = append(args, "--from-wal-dir="+f.WALDir)
			}
			hints = append(hints, "to rescue only "+f.DataDir+": "+commandWith(cmd, nil, args...))
		}
		return withHints(err, hints...)
	case errors.As(err, new(*rescue.UndecidedError)):
		return withHints(err,
			"to keep them, which may bring back what was never acknowledged: "+
				commandWith(cmd, nil, "--uncommitted="+string(rescue.Take)),
			"to leave them out, which may lose what was acknowledged: "+
				commandWith(cmd, nil, "--uncommitted="+string(rescue.Drop)))
	case errors.Is(err, syscall.ENOSPC):
		return withHints(err, "or give --spool a folder with more room")
	}
	return err
}

// walWords are flags that say where each WAL is, with DIR2 for one that is not known.
func (o *rescueOptions) walWords(bare *rescue.NoWALError) (out []string) {
	for _, f := range o.folders() {
		dir := cmp.Or(f.WALDir, filepath.Join(f.DataDir, "member", "wal"))
		if slices.Contains(bare.DataDirs, f.DataDir) {
			dir = "DIR2"
		}
		out = append(out, "--from-wal-dir="+dir)
	}
	return out
}

// restore goes on with the file as "snapshot restore" does.
func (o *rescueOptions) restore(cmd *cobra.Command, job *restoreJob, r rescue.Report, path string) error {
	for _, dir := range o.dataDirs {
		job.keep("the data of a survivor", dir)
	}
	for _, dir := range o.walDirs {
		job.keep("the WAL of a survivor", dir)
	}
	for _, file := range o.from.files {
		job.keep("a file of --from", file)
	}
	job.keep("the rescued snapshot", path)
	job.keepSpool()
	same, err := o.sameRestore(cmd, job.site.Owner)
	if err != nil {
		return err
	}
	src, err := restore.FromFile(cmd.Context(), path, restore.RequireHash, nil)
	if err != nil {
		return err
	}
	about := src.About()
	about.Name = "what was rescued from " + r.DataDir
	about.Warnings = slices.Concat(r.Notes, about.Warnings)
	if !cmd.Flags().Changed("bump-revision") {
		about.Warnings = append(about.Warnings, fmt.Sprintf("no revision is bumped: clients may know "+
			"revisions that are lost, and a watch from such a one would wait for ever (--bump-revision=%d --mark-compacted)",
			rescueBump))
	}
	job.cmd, job.src, job.ref = same, &piped{src, about}, cmp.Or(r.File, "RESCUED")
	if err := o.from.decideMembers(job); err != nil {
		return err
	}
	return job.run()
}

// spoolFlagNames are flags of a copy: a file that is named is not copied.
var spoolFlagNames = []string{"spool", "spool-min-free"}

// sameRestore returns the command that restores the file with the flags of a rescue, and with what
// the files of --from say: the commands for other hosts, and those after an error, are of that.
func (o *rescueOptions) sameRestore(cmd *cobra.Command, owner *restore.Owner) (*cobra.Command, error) {
	same, _, err := cmd.Root().Find([]string{"snapshot", "restore"})
	if err != nil {
		return nil, err
	}
	same.SetContext(cmd.Context())
	set := func(name, value string) {
		to := same.Flags().Lookup(name)
		if to != nil && to.Annotations[noEffect] == nil && !slices.Contains(spoolFlagNames, name) && value != "" {
			err = errors.Join(err, same.Flags().Set(name, value))
		}
	}
	cmd.LocalFlags().Visit(func(f *pflag.Flag) { set(f.Name, f.Value.String()) })
	if len(o.from.files) > 0 && !o.allMembers {
		set("name", o.target.name)
		set("data-dir", o.target.dataDir)
		set("wal-dir", o.target.walDir)
		if owner != nil {
			set("chown", fmt.Sprintf("%d:%d", owner.UID, owner.GID))
		}
	}
	return same, err
}
