package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/etcd-backupd/backupd/internal/restore"
)

// targetFlags are the flags of etcdutl snapshot restore, and a few more.
type targetFlags struct {
	name, dataDir, walDir, initialCluster, token, peerURLs string

	skipHashCheck bool
	mmapBytes     uint64
	bump          uint64
	markCompacted bool
	clearAlarms   bool
	chown         string
	replace       bool
	allowRunning  bool
	dryRun        bool
}

func (t *targetFlags) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&t.dataDir, "data-dir", "", "data directory to make (default: NAME.etcd)")
	f.StringVar(&t.walDir, "wal-dir", "", "WAL directory to make, if not in the data directory")
	f.StringVar(&t.initialCluster, "initial-cluster", "",
		"members of the new cluster: name=peerURL, separated by commas")
	f.StringVar(&t.token, "initial-cluster-token", "", "token of the new cluster, the same for all its members")
	f.StringVar(&t.peerURLs, "initial-advertise-peer-urls", "",
		"this member's peer URLs (default: those in --initial-cluster)")
	f.BoolVar(&t.skipHashCheck, "skip-hash-check", false,
		"accept a file without SHA-256 (required for one copied from a data directory)")
	f.Uint64Var(&t.mmapBytes, "initial-memory-map-size", 0,
		"initial memory map size of the database in bytes (default: the size it needs)")
	f.Uint64Var(&t.bump, "bump-revision", 0, "how much to increase the latest revision after restore")
	f.BoolVar(&t.markCompacted, "mark-compacted", false,
		"mark the latest revision after restore as compacted (required if --bump-revision > 0, disallowed otherwise)")
	f.BoolVar(&t.clearAlarms, "clear-alarms", false,
		"remove alarms of the old cluster, which would be active in the new one")
	f.StringVar(&t.chown, "chown", "",
		"uid:gid that will own everything (default: the owner of the folder that is replaced)")
	f.BoolVar(&t.replace, "replace", false, "move existing data aside, to DIR"+restore.AsidePrefix+"TIME")
	f.BoolVar(&t.allowRunning, "allow-running", false, "restore although a server listens on this member's peer URL")
	f.BoolVar(&t.dryRun, "dry-run", false, "check everything, print the plan, touch nothing")
	for _, name := range []string{"replace", "allow-running", "skip-hash-check", "clear-alarms", "chown"} {
		annotate(f, name, flagOnly)
	}
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

func (t *targetFlags) order() (restoreOrder, error) {
	o := restoreOrder{
		request: restore.Request{
			InitialCluster: t.initialCluster, Token: t.token,
			BumpRevision: t.bump, MarkCompacted: t.markCompacted, ClearAlarms: t.clearAlarms,
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
	if t.peerURLs != "" {
		o.site.PeerURLs = strings.Split(t.peerURLs, ",")
	}
	if t.chown != "" {
		var owner restore.Owner
		n, err := fmt.Sscanf(t.chown+"\n", "%d:%d\n", &owner.UID, &owner.GID)
		if err != nil || n != 2 || owner.UID < 0 || owner.GID < 0 {
			return o, &usageError{fmt.Errorf("--chown %q: want uid:gid in numbers", t.chown)}
		}
		o.site.Owner = &owner
	}
	return o, nil
}

func newSnapshotRestoreCommand(a *app) *cobra.Command {
	var t targetFlags
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

` + exitHelp,
		Example: `  backupd snapshot restore etcd.db --data-dir /var/lib/etcd
  backupd snapshot restore etcd.db --name m1 --data-dir /var/lib/etcd \
    --initial-cluster m1=https://10.0.0.1:2380,m2=https://10.0.0.2:2380 \
    --initial-cluster-token etcd-cluster-2 --initial-advertise-peer-urls https://10.0.0.1:2380`,
		Args: arguments(1, "exactly one argument <filename>"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return runSnapshotRestore(cmd, a, t, args[0])
		},
	}
	t.register(cmd)
	cmd.Flags().StringVar(&t.name, "name", "default", "name of this member")
	return cmd
}

func runSnapshotRestore(cmd *cobra.Command, a *app, t targetFlags, path string) error {
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
	job := &restoreJob{restoreOrder: o, cmd: cmd, app: a, ref: path}
	check := restore.RequireHash
	if t.skipHashCheck {
		check = restore.SkipHash
	}
	progress := func(done, total int64) { a.progress.report("check", done, total) }
	if job.src, err = restore.FromFile(cmd.Context(), path, check, progress); err != nil {
		return job.explain(err)
	}
	return job.run()
}
