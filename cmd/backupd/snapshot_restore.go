package main

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/kballard/go-shellquote"
	"github.com/spf13/cobra"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/restore"
	"github.com/etcd-backupd/backupd/internal/restore/inuse"
	"github.com/etcd-backupd/backupd/internal/secret"
)

// targetFlags are the flags of etcdutl snapshot restore, and a few more.
type targetFlags struct {
	name, dataDir, walDir, initialCluster, token, peerURLs string

	skipHashCheck bool
	mmapBytes     uint64
	bump          bumpFlag
	markCompacted bool
	clearAlarms   bool
	chown         string
	replace       bool
	allowRunning  bool
	allowLocal    bool
	dryRun        bool
}

// registerCluster registers the flags that decide the new cluster, but for its token.
func (t *targetFlags) registerCluster(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&t.initialCluster, "initial-cluster", "",
		"members of the new cluster: name=peerURL, separated by commas")
	f.BoolVar(&t.clearAlarms, "clear-alarms", false,
		"remove all alarms of the old cluster, which would be active in the new one")
	f.BoolVar(&t.allowLocal, "allow-localhost", false,
		"restore although some members have a peer URL of localhost, and others have not")
}

func (t *targetFlags) register(cmd *cobra.Command) {
	t.registerCluster(cmd)
	f := cmd.Flags()
	f.StringVar(&t.dataDir, "data-dir", "", "data directory to make (default: NAME.etcd)")
	f.StringVar(&t.walDir, "wal-dir", "", "WAL directory to make, if not in the data directory")
	f.StringVar(&t.token, "initial-cluster-token", "", "token of the new cluster, the same for all its members")
	f.StringVar(&t.peerURLs, "initial-advertise-peer-urls", "",
		"this member's peer URLs (default: those in --initial-cluster)")
	f.BoolVar(&t.skipHashCheck, "skip-hash-check", false,
		"accept a file without SHA-256 (required for one copied from a data directory)")
	f.Uint64Var(&t.mmapBytes, "initial-memory-map-size", 0,
		"initial memory map size of the database in bytes (default: the size it needs)")
	f.StringVar(&t.chown, "chown", "",
		"user:group that will own everything, by names or numbers (default: the owner of the folder that is replaced)")
	f.BoolVar(&t.replace, "replace", false, "move existing data of etcd aside, to DIR"+restore.AsidePrefix+"TIME")
	f.BoolVar(&t.allowRunning, "allow-running", false,
		"restore although a server listens on this member's peer URL, or members of the old cluster answer")
	f.BoolVar(&t.dryRun, "dry-run", false,
		"try everything but the restore itself, print the plan, leave everything as it is")
	mustRegister(cmd.MarkFlagDirname("data-dir"))
	mustRegister(cmd.MarkFlagDirname("wal-dir"))
}

// restoreOrder is one restore as the flags describe it.
type restoreOrder struct {
	request   restore.Request
	site      restore.Site
	mmapBytes uint64
	dryRun    bool
}

// keep names something that the restore must leave where it is.
func (o *restoreOrder) keep(what, path string) {
	o.site.Kept = append(o.site.Kept, inuse.Kept{What: what, Path: path})
}

// keepSpool is for the backups of this host: a restore needs no spool.
func (o *restoreOrder) keepSpool() { o.keep("the spool", os.Getenv("BACKUPD_SPOOL")) }

func (t *targetFlags) order() (restoreOrder, error) {
	o := restoreOrder{
		request: restore.Request{
			InitialCluster: t.initialCluster, Token: t.token,
			BumpRevision: t.bump.by, AutoBump: t.bump.auto, MarkCompacted: t.markCompacted, ClearAlarms: t.clearAlarms,
			AllowLocalhost: t.allowLocal,
		},
		site: restore.Site{
			Name: t.name, DataDir: t.dataDir, WALDir: t.walDir,
			Replace: t.replace, AllowRunning: t.allowRunning,
		},
		mmapBytes: t.mmapBytes,
		dryRun:    t.dryRun,
	}
	if err := o.request.Validate(); err != nil {
		return o, &usageError{err}
	}
	if err := t.checkLogin(); err != nil {
		return o, err
	}
	if t.peerURLs != "" {
		o.site.PeerURLs = strings.Split(t.peerURLs, ",")
	}
	if t.chown != "" {
		owner, err := parseOwner(t.chown)
		if err != nil {
			return o, &usageError{fmt.Errorf("--chown %q: %w", t.chown, err)}
		}
		o.site.Owner = owner
	}
	return o, nil
}

// checkLogin refuses URLs with a login. Members have none for each other, and the commands
// that are printed have the URLs.
func (t *targetFlags) checkLogin() error {
	for flag, list := range map[string]string{
		"initial-cluster": t.initialCluster, "initial-advertise-peer-urls": t.peerURLs,
	} {
		for part := range strings.SplitSeq(list, ",") {
			_, url, named := strings.Cut(part, "=")
			if !named {
				url = part
			}
			if secret.InAddress(url) {
				return &usageError{fmt.Errorf(
					"--%s must not hold a user or a password: members of etcd have no login for each other", flag)}
			}
		}
	}
	return nil
}

// checkStanding refuses folders that a restore would rename under the feet of the shell:
// it would go on in the folder that was moved away.
func checkStanding(site restore.Site) error {
	here, err := os.Getwd()
	if err != nil {
		return nil // nobody stands there
	}
	members, _ := os.Stat(site.OutputDir) // it stays, but what is in it may not
	dataDir := cmp.Or(site.DataDir, site.Name+".etcd")
	for dir := here; ; dir = filepath.Dir(dir) {
		at, err := os.Stat(dir)
		if err != nil {
			return fmt.Errorf("look at the working directory: %w", err)
		}
		targets := []string{dataDir, site.WALDir}
		for _, place := range site.Places {
			targets = append(targets, place.DataDir, place.WALDir)
		}
		for _, target := range targets {
			if info, err := os.Stat(target); target != "" && err == nil && os.SameFile(info, at) {
				return standing(here, target, dir)
			}
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return nil
		}
		if above, err := os.Stat(parent); err == nil && members != nil && os.SameFile(above, members) {
			return standing(here, site.OutputDir, parent)
		}
	}
}

func standing(here, target, dir string) error {
	return backup.WithHint(&backup.RefusedError{Reason: fmt.Sprintf(
		"the working directory %s is in %s, and the restore replaces that folder as a whole", here, target)},
		"run it in another folder, such as /, and name this one %s; "+
			"other relative paths on the command line change with the folder", shellquote.Join(dir))
}

func newSnapshotRestoreCommand(a *app) *cobra.Command {
	var t targetFlags
	var copies spoolFlags
	cmd := &cobra.Command{
		Use:   "restore <filename> --data-dir {output dir} [options]",
		Short: "Restore a snapshot file to an etcd data directory",
		Long: `Restore a snapshot file to an etcd data directory, as "etcdutl snapshot restore"
does, with the same flags.

Everything is checked before anything is touched: the file, the names and URLs, the
free space, and that no server runs on the target. The directory is built beside its
target and renamed into place at the end. If the command is killed at any moment, the
same command finishes the work. Another restore to the same directory is refused then;
"backupd restore --finish" finishes the interrupted one.

"-" is standard input. It is copied to a temporary file first, in the folder --spool.

` + exitHelp,
		Example: `  backupd snapshot restore etcd.db --data-dir /var/lib/etcd
  backupd snapshot restore etcd.db --name m1 --data-dir /var/lib/etcd \
    --initial-cluster m1=https://10.0.0.1:2380,m2=https://10.0.0.2:2380 \
    --initial-cluster-token etcd-cluster-2 --initial-advertise-peer-urls https://10.0.0.1:2380`,
		Args: arguments(1, "exactly one argument <filename>"),
		RunE: func(cmd *cobra.Command, args []string) error {
			in, err := a.openInput(cmd, args[0], copies.folder())
			if err != nil {
				return err
			}
			return errors.Join(runSnapshotRestore(cmd, a, t, args[0], in), in.close())
		},
	}
	t.register(cmd)
	t.registerBump(cmd)
	copies.register(cmd, "copy of standard input")
	cmd.Flags().StringVar(&t.name, "name", "default", "name of this member")
	return cmd
}

func runSnapshotRestore(cmd *cobra.Command, a *app, t targetFlags, name string, in *input) error {
	// etcdutl's defaults, so that members restored on different hosts with the
	// same flags find each other.
	if t.initialCluster == "" {
		t.initialCluster = "default=http://localhost:2380"
	}
	if t.token == "" {
		t.token = "etcd-cluster"
	}
	o, err := t.order()
	if err != nil {
		return err
	}
	o.keep("the file that is restored", in.path)
	o.keepSpool()
	if err := checkStanding(o.site); err != nil {
		return err
	}
	job := &restoreJob{restoreOrder: o, cmd: cmd, app: a, ref: name}
	check := restore.RequireHash
	if t.skipHashCheck {
		check = restore.SkipHash
	}
	progress := func(done, total int64) { a.progress.report("check", done, total) }
	src, err := restore.FromFile(cmd.Context(), in.path, check, progress)
	if err != nil {
		return job.explain(in.explain(err))
	}
	job.src = in.source(src)
	return inEtcdutlsWords(job.run())
}

// inEtcdutlsWords begins the error of a data directory as etcdutl does, which says for both
// troubles the same: scripts look for it.
func inEtcdutlsWords(err error) error {
	var e *restore.DataDirError
	if !errors.As(err, &e) {
		return err
	}
	return fmt.Errorf("data-dir %q not empty or could not be read: %w", e.Dir, err)
}
