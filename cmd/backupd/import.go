package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/codec"
	"github.com/etcd-backupd/backupd/internal/config"
	"github.com/etcd-backupd/backupd/internal/intake"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/snapshot"
)

type importOptions struct {
	repo     repoFlags
	encoding encodingFlags
	spool    spoolFlags
	takenAt  string
	skipHash bool
}

func newImportCommand(a *app) *cobra.Command {
	var o importOptions
	cmd := &cobra.Command{
		Use:   "import [--repo REPO] --cluster NAME FILE...",
		Short: "Store snapshot files of other programs in a repository",
		Long: `Store snapshot files of other programs in a repository: of etcdctl, k3s, RKE2 and Talos,
plain or packed by gzip, zstd or zip, and full snapshots of etcd-backup-restore. Each is
compared with the SHA-256 of etcd at its end, inspected page by page, stored and read back
as a backup is. It is unconfirmed, for nobody compared it with the cluster. It is pinned,
for unconfirmed snapshots count for no rule of retention: 'backupd unpin' gives it free.

A file was taken when its name says, if that has a Unix time, as those of k3s, RKE2 and
etcd-backup-restore, or a date with a zone; else when it was modified. A copy without its
time is refused where the date in its name, or the raft log of the snapshots beside it,
shows it. Then --taken-at says the time.

A file must be of the history of its cluster, by its members and its keys, else it is
refused (exit code 6). The same bytes are stored once. A file without the SHA-256 of etcd,
such as a copy of member/snap/db, needs --skip-hash-check. If some files are refused, the
others are stored, and the exit code is 3.

` + exitHelp,
		Example: `  backupd import --cluster prod /var/lib/rancher/k3s/server/db/snapshots/*
  backupd import --repo s3://backups/etcd --cluster prod etcd.db --taken-at 2026-11-20T03:00:00Z`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 {
				return &usageError{fmt.Errorf("%s expects the files to import", cmd.CommandPath())}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return runImport(cmd, a, o, args) },
	}
	o.repo.register(cmd)
	registerConfigured(cmd)
	o.encoding.register(cmd)
	o.spool.register(cmd, "unpacked copy")
	f := cmd.Flags()
	f.StringVar(&o.takenAt, "taken-at", "", "when the snapshot of the only file was taken, as 2026-11-20T03:00:00Z")
	f.BoolVar(&o.skipHash, "skip-hash-check", false,
		"accept files without SHA-256 (required for those copied from a data directory)")
	return cmd
}

// imported is what became of one file. What is not stored has an error.
type imported struct {
	File     string            `json:"file"`
	State    backup.State      `json:"state,omitempty"`
	ID       backup.SnapshotID `json:"id,omitempty"`
	Present  bool              `json:"present"`
	Pinned   bool              `json:"pinned"`
	Time     time.Time         `json:"startedAt,omitzero"`
	TimeFrom backup.TimeFrom   `json:"timeFrom,omitempty"`
	Revision backup.Revision   `json:"revision,omitempty"`
	Timeline string            `json:"timeline,omitempty"`
	Error    string            `json:"error,omitempty"`
	Hint     string            `json:"hint,omitempty"`
}

type importList struct {
	Cluster string     `json:"cluster"`
	Imports []imported `json:"imports"`
}

func runImport(cmd *cobra.Command, a *app, o importOptions, paths []string) error {
	ctx := cmd.Context()
	files, failed, err := o.find(paths)
	if err != nil {
		return err
	}
	encoding, err := o.encodingOf(cmd, a)
	if err != nil {
		return err
	}
	in, err := o.repo.openCluster(cmd, a, o.repo.openToWrite)
	if err != nil {
		return err
	}
	all, err := repository.ReadTimelines(ctx, in)
	if err == nil && a.config == "" {
		err = o.encoding.refusePlain(cmd, all)
	}
	if err != nil {
		return err
	}
	by := &intake.Importer{
		To: in, SkipHash: o.skipHash, By: whoami(),
		Taker: &snapshot.Taker{
			Codec: encoding, Spool: o.spool.folder(), Tool: version().String(), Log: a.log.slog, Progress: a.progress.report,
		},
	}
	run := &importRun{cmd: cmd, a: a, o: &o, list: importList{Cluster: in.Name(), Imports: []imported{}}}
	for _, path := range paths {
		if err := failed[path]; err != nil {
			run.refuse(path, err)
			delete(failed, path) // it may have been named twice
		}
	}
	for n, f := range files {
		a.log.slog.Info("importing", "file", f.Path, "number", n+1, "of", len(files))
		done, err := by.Import(ctx, f)
		if ctx.Err() != nil {
			a.progress.stop()
			fmt.Fprint(a.stdout, run.text.String())
			return context.Cause(ctx)
		}
		run.add(f, done, err)
		if errors.As(err, new(*intake.StoreError)) { // it would fail for each of them
			run.leave(files[n+1:])
			break
		}
	}
	return run.end()
}

// find returns the files, the newest first, and why those that are left out cannot be imported.
func (o *importOptions) find(paths []string) ([]intake.File, map[string]error, error) {
	now := time.Now()
	if o.takenAt == "" {
		files, failed := intake.Find(paths, now)
		return files, failed, nil
	}
	if len(paths) > 1 {
		return nil, nil, &usageError{errors.New("--taken-at goes with one file: each was taken at another time")}
	}
	at, err := time.Parse(time.RFC3339, o.takenAt)
	if err != nil {
		return nil, nil, &usageError{fmt.Errorf("--taken-at %q: want a time with its zone, such as 2026-11-20T03:00:00Z",
			o.takenAt)}
	}
	if err := intake.Plausible(at, now); err != nil {
		return nil, map[string]error{paths[0]: err}, nil
	}
	taken := intake.Taken{At: at.UTC().Truncate(time.Second), From: backup.TimeFromFlag}
	return []intake.File{{Path: paths[0], Taken: taken}}, nil, nil
}

// encodingOf says how the snapshots are stored: as the configuration says, if one led here.
func (o *importOptions) encodingOf(cmd *cobra.Command, a *app) (codec.Options, error) {
	if a.config == "" {
		return o.encoding.codec(a)
	}
	if err := excludeConfig(cmd, encodingNames...); err != nil {
		return codec.Options{}, err
	}
	return config.LoadCodec(a.config, o.repo.cluster)
}

// importRun collects what became of the files.
type importRun struct {
	cmd   *cobra.Command
	a     *app
	o     *importOptions
	list  importList
	errs  []error
	hints []string
	files int
	bytes int64 // that are stored now
	// text is the answer for people. While bars are shown it must wait.
	text strings.Builder
	// skipped are files that have no error of their own.
	skipped int
}

// refuse adds a file that is not stored.
func (r *importRun) refuse(path string, err error) {
	r.files++
	err = fmt.Errorf("%s: %w", path, err)
	r.errs = append(r.errs, err)
	row := imported{File: path, Error: err.Error()}
	if row.Hint = hint(r.explain(path, err)); row.Hint != "" && !slices.Contains(r.hints, row.Hint) {
		r.hints = append(r.hints, row.Hint)
	}
	r.list.Imports = append(r.list.Imports, row)
}

// leave adds files that were not tried.
func (r *importRun) leave(files []intake.File) {
	for _, f := range files {
		r.list.Imports = append(r.list.Imports, imported{File: f.Path, Error: "not tried: the repository failed"})
	}
	if r.files += len(files); len(files) > 0 {
		r.errs = append(r.errs, fmt.Errorf("%s not tried, the next is %s", count(len(files), "file was", "files were"),
			files[0].Path))
		r.skipped = len(files) - 1
	}
}

// explain adds to the error of a file the commands that import it all the same.
func (r *importRun) explain(path string, err error) error {
	var stranger *intake.StrangerError
	var times *intake.TimeError
	switch {
	case errors.As(err, &stranger):
		hints := []string{r.elsewhere(path)}
		if id := stranger.ClusterID; id != 0 {
			hints = append(hints, "if it is the cluster that has replaced the one before, accept it, and import it again: "+
				acceptCommand(r.cmd, "--cluster-id", id.String()))
		}
		return withHints(err, hints...)
	case errors.As(err, &times) && len(times.Times) > 0:
		var hints []string
		for _, t := range times.Times {
			hints = append(hints, "if it was taken then: "+r.again(path, "--taken-at="+t.UTC().Format(time.RFC3339)))
		}
		return withHints(err, hints...)
	case errors.As(err, &times):
		hints := []string{"say when it was taken: " + r.again(path) + " --taken-at=TIME"}
		if times.Cluster != "" {
			hints = append(hints, r.elsewhere(path))
		}
		return withHints(err, hints...)
	}
	return err
}

// elsewhere is the command that keeps a file of another history.
func (r *importRun) elsewhere(path string) string {
	return "to keep it under a name of its own: " + r.again(path, "--cluster="+r.list.Cluster+"-old")
}

// again is the command for one of the files.
func (r *importRun) again(path string, flags ...string) string {
	return commandWith(r.cmd, []string{"taken-at"}, append([]string{path}, flags...)...)
}

// add adds a file that was imported, or why it was not.
func (r *importRun) add(f intake.File, done intake.Done, err error) {
	if err != nil {
		r.refuse(f.Path, err)
		return
	}
	r.files++
	m := done.Manifest
	row := imported{
		File: f.Path, State: m.State(), ID: m.ID, Present: done.Present, Pinned: done.Pinned,
		Time: m.StartedAt, Revision: m.Revision, Timeline: m.Timeline,
	}
	if m.Imported != nil {
		row.TimeFrom = m.Imported.TimeFrom
	}
	r.list.Imports = append(r.list.Imports, row)
	if r.a.forMachines() {
		return
	}
	if done.Present {
		note := ""
		if m.Imported != nil && !done.Pinned {
			note = ", which is not pinned: the next prune may remove it"
		}
		fmt.Fprintf(&r.text, "Already there: %s is snapshot %s%s\n", visible(f.Path), m.ID, note)
		return
	}
	fmt.Fprintf(&r.text, "Imported %s as %s snapshot %s, pinned\n  taken at %s, by %s; revision %d, %s, timeline %s\n",
		visible(f.Path), m.State(), m.ID, m.StartedAt.Format(time.RFC3339), f.From, m.Revision,
		count(int(m.Keys), "key", "keys"), m.Timeline)
	for _, why := range m.Suspect {
		fmt.Fprintf(&r.text, "  SUSPECT: %s\n", why)
	}
	r.bytes += m.Stored.Bytes
}

// end prints the answer, and returns the errors of all files, with their hints.
func (r *importRun) end() error {
	r.a.progress.stop()
	if _, err := r.a.document(kindImport, r.list); err != nil {
		return err
	}
	fmt.Fprint(r.a.stdout, r.text.String())
	if r.bytes > 0 {
		fmt.Fprintf(r.a.stdout, "Stored %s, which retention keeps until 'backupd unpin', and counts for max-bytes\n",
			humanize.IBytes(uint64(r.bytes)))
	}
	if len(r.errs) == 0 {
		return nil
	}
	err := errors.Join(r.errs...)
	if len(r.errs)+r.skipped < r.files {
		err = &partialError{err}
	}
	if more := len(r.hints) - choicesShown; more > 0 {
		r.hints = append(r.hints[:choicesShown], fmt.Sprintf("and %d more: with -w json each has its own", more))
	}
	if len(r.hints) > 0 {
		err = backup.WithHint(err, "%s", strings.Join(r.hints, "\n"))
	}
	return err
}
