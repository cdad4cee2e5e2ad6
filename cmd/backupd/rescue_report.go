package main

import (
	"context"
	"fmt"
	"io"
	"path/filepath"

	"github.com/kballard/go-shellquote"

	"github.com/etcd-backupd/backupd/internal/rescue"
	"github.com/etcd-backupd/backupd/internal/restore"
)

func printRescued(ctx context.Context, a *app, r rescue.Report, path string) error {
	if printed, err := a.document(kindRescue, r); printed {
		return err
	}
	writeRescued(a.stdout, r)
	if r.File == "" {
		return nil // a dry run
	}
	return writeNext(ctx, a.stdout, path)
}

// writeRescued says what was rescued, what was not, and what comes next.
func writeRescued(w io.Writer, r rescue.Report) {
	for _, s := range r.Survivors {
		fmt.Fprintf(w, "Survivor %s (member %s): entries up to %d in its database, up to %d after %s, revision %d\n",
			s.DataDir, s.Name, s.StoredIndex, s.RaftIndex, count(int(s.Replayed), "replayed entry", "replayed entries"),
			s.Revision)
	}
	for _, c := range r.Compared {
		fmt.Fprintf(w, "Compared %s\n", c)
	}
	if len(r.Survivors) > 1 {
		fmt.Fprintf(w, "Best: %s\n", r.DataDir)
	}
	for _, text := range r.Notes {
		fmt.Fprintf(w, "Warning: %s\n", text)
	}
	for _, text := range r.NotKnown {
		fmt.Fprintf(w, "Not known: %s\n", text)
	}
	if r.LostEntries == 0 && len(r.NotKnown) == 0 {
		fmt.Fprintln(w, "Everything that a survivor shows as committed was recovered.")
	}
	cluster := r.ClusterID.String()
	if r.ClusterID == 0 {
		cluster = "not known"
	}
	fmt.Fprintf(w, "Rescued: cluster %s, raft index %d, revision %d, HashKV %d\n", cluster, r.RaftIndex, r.Revision,
		r.HashKV.Hash)
	if r.File != "" {
		fmt.Fprintf(w, "Snapshot file: %s\n", r.File)
	}
}

// writeNext prints the commands that restore the members from the file, each on its host.
func writeNext(ctx context.Context, w io.Writer, path string) error {
	src, err := restore.FromFile(ctx, path, restore.RequireHash, nil)
	if err != nil {
		return err
	}
	p, err := restore.NewPlan(src.About(), restore.Request{
		AllowLocalhost: true, BumpRevision: rescueBump, MarkCompacted: true,
	})
	if err != nil { // no members that can be restored
		fmt.Fprintf(w, "Restore it with --initial-cluster: %v\n", err)
		return nil
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	fmt.Fprint(w, restoreWords)
	for _, m := range p.Members {
		fmt.Fprintf(w, "  %s %s\n", shellquote.Join("backupd", "snapshot", "restore", abs, "--name="+m.Name,
			"--initial-cluster="+p.InitialCluster(), "--initial-cluster-token="+p.Token,
			fmt.Sprintf("--bump-revision=%d", rescueBump), "--mark-compacted"), ownPlace)
	}
	return nil
}

// rescueBump is etcd's advice for a restore of old data: more revisions than can have been lost.
const rescueBump = 1_000_000_000

// ownPlace is what only the host of a member knows. A shell refuses the command until it is set.
const ownPlace = `--data-dir="${DATA_DIR:?data directory to restore to}" ` +
	`--chown="${OWNER:?user:group that runs etcd}"`

// restoreWords say what the commands want.
const restoreWords = `Restore the members by these commands, each on its host, with the file there. Set
DATA_DIR, which is not the folder of a survivor, and OWNER, such as etcd:etcd. Add --wal-dir if etcd is started
with one: a server that finds its old WAL replays it over the restored data. The revision is bumped: clients
may know revisions that are lost, and a watch from such a one would wait for ever.
`
