package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/codec"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/snapshot"
	"github.com/etcd-backupd/backupd/internal/spool"
)

type backupOptions struct {
	repo           repoFlags
	recipients     []string
	recipientFiles []string
	compression    string
	spool          string
	noHashCheck    bool
	config         string
	once           bool
	init           bool
}

func newBackupCommand(a *app) *cobra.Command {
	var o backupOptions
	cmd := &cobra.Command{
		Use:   "backup --repo REPO --cluster NAME | --config FILE",
		Short: "Take one verified snapshot into a repository",
		Long: `Take one verified snapshot into a repository.

The database of the best member is received into a local spool and compared with
etcd's SHA-256. Meanwhile it is compressed, encrypted and uploaded. Every page and
record is inspected in a child process, HashKV is compared with every voting member,
and the stored object is read back. The manifest is written last: from then on the
backup exists.

A snapshot whose content is in doubt (a member holds other data, a CORRUPT alarm is
active) is stored and marked suspect, and the exit code is 4. A snapshot that is whole
but that no voting member could be compared with is stored as unconfirmed, with the
reasons, and the exit code is 0.

The repository must be there: see 'backupd init'. With --init the backup makes it, which
is right for a bucket, and wrong where a disk may not be mounted.

With --config the command does the daemon's work of one slot, for all clusters of the
configuration or for those named with --cluster a,b: it stores what is pending in the
spool, skips clusters that have not changed, prunes old snapshots and sends
notifications. Use it in a CronJob or a timer.

` + exitHelp,
		Example: `  backupd backup --repo file:///var/backups/etcd --cluster prod
  backupd backup --init --repo s3://backups/etcd --cluster prod --recipient age1... \
    --endpoints https://10.0.0.1:2379,https://10.0.0.2:2379 \
    --cacert ca.crt --cert client.crt --key client.key
  backupd backup --once --config /etc/backupd/backupd.yaml`,
		Args:        arguments(0, "no argument"),
		Annotations: needsEtcd,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case o.config != "":
				return runOnce(cmd, a, o.config, givenCluster(cmd, o.repo.cluster), o.init)
			case o.once:
				return &usageError{errors.New(
					"--once does one slot of a configuration: give --config (or BACKUPD_CONFIG), or leave --once out")}
			}
			return runBackup(cmd, a, o)
		},
	}
	o.repo.register(cmd)
	f := cmd.Flags()
	f.StringArrayVar(&o.recipients, "recipient", nil,
		"age public key to encrypt to: age1... or age1pq1... (repeatable)")
	f.StringArrayVar(&o.recipientFiles, "recipients-file", nil,
		"file with age public keys, one per line (repeatable)")
	f.StringVar(&o.compression, "compression", "zstd", "compression: zstd, none")
	f.StringVar(&o.spool, "spool", "",
		"folder for the local copy, which is as large as the database (default: the system's temporary folder)")
	f.BoolVar(&o.noHashCheck, "no-hash-check", false,
		"do not compare HashKV with the members: the snapshot is stored as unconfirmed")
	registerConfig(cmd, &o.config)
	f.BoolVar(&o.once, "once", false,
		"do one slot and end: says explicitly that this is no daemon (needs --config)")
	f.BoolVar(&o.init, "init", false, "make the repository if there is none (a folder must be there)")
	annotate(f, "init", flagOnly)
	mustRegister(cmd.RegisterFlagCompletionFunc("compression", fixed("zstd", "none")))
	return cmd
}

func runBackup(cmd *cobra.Command, a *app, o backupOptions) error {
	ctx := cmd.Context()
	recipients, err := codec.ParseRecipients(o.recipients, o.recipientFiles)
	if err != nil {
		return &usageError{err}
	}
	compression, err := codec.ParseCompression(o.compression)
	if err != nil {
		return &usageError{err}
	}
	if o.repo.cluster == "" {
		return &usageError{errors.New(
			"no cluster name: give --cluster (or BACKUPD_CLUSTER), a name of your choice for this etcd cluster")}
	}
	source, err := a.connect() // to nothing yet
	if err != nil {
		return err
	}
	defer source.Close()
	// Where there is no repository, or a store refuses us, etcd is not asked for anything.
	repo, err := o.repo.openOrMake(ctx, a, o.init)
	if err != nil {
		return err
	}
	t := &snapshot.Taker{
		Source: source, Codec: codec.Options{Compress: compression, Recipients: recipients},
		Spool: spool.Folder{Dir: o.spool}, Tool: version().String(), Log: a.log.slog, Progress: a.progress.report,
	}
	if o.noHashCheck {
		t.Hashes = snapshot.SkipHashes
	}
	m, history, err := takeInto(ctx, t, repo.Cluster(o.repo.cluster))
	if err != nil {
		return err
	}
	a.progress.stop()
	if err := printTaken(a, m, o.repo.repo); err != nil {
		return err
	}
	if m.State() == backup.Suspect {
		return backup.WithHint(backup.Corruptf("snapshot %s is stored, but suspect: %s", m.ID, m.Suspect[0]),
			"keep older snapshots; find out which member is right (etcdctl endpoint hashkv --cluster) "+
				"before you restore this one")
	}
	return explainHistory(cmd, history)
}

// openOrMake opens the repository. If there is none it makes it, where that is allowed
// and no certain one is expected, and says so.
func (r *repoFlags) openOrMake(ctx context.Context, a *app, may bool) (*repository.Repository, error) {
	repo, err := r.openExisting(ctx, a)
	if !may || !isNotFound(err) { // it is not if a certain one is expected: see AbsentError
		return repo, err
	}
	s, err := r.open(ctx, a)
	if err != nil {
		return nil, err
	}
	if repo, err = repository.Create(ctx, s); err != nil {
		return nil, fmt.Errorf("open repository %s: %w", r.repo, err)
	}
	if repo.Made() {
		a.log.slog.Warn("there was no repository, a new one was made", "id", repo.ID(), "address", r.repo)
	}
	return repo, nil
}

// takeInto takes one snapshot into a cluster's part of a repository. history is the
// error if nobody knows which history of the cluster is the present one.
func takeInto(
	ctx context.Context, t *snapshot.Taker, in *repository.Cluster,
) (m *backup.Manifest, history, err error) {
	to := snapshot.Target{Cluster: in}
	if to.Timelines, err = repository.ReadTimelines(ctx, to.Cluster); err != nil {
		return nil, nil, err
	}
	survey, err := t.Source.Survey(ctx)
	if err != nil {
		return nil, nil, err
	}
	if t.Log != nil {
		snapshot.LogSurvey(t.Log, survey)
	}
	if m, err = t.Take(ctx, survey, to); err != nil {
		return nil, nil, err
	}
	if len(to.Timelines) == 0 {
		return m, nil, nil // it is the first history
	}
	all, err := repository.ReadTimelines(ctx, to.Cluster)
	if err != nil {
		return nil, nil, fmt.Errorf("snapshot %s is stored, but its history cannot be judged: %w", m.ID, err)
	}
	_, history = all.Added(m).Present()
	return m, history, nil
}

func printTaken(a *app, m *backup.Manifest, repo string) error {
	if a.global.writeOut == "json" {
		return printJSON(a.stdout, kindSnapshot, m)
	}
	state := map[backup.State]string{
		backup.Verified: "Verified", backup.Unconfirmed: "Unconfirmed", backup.Suspect: "SUSPECT",
	}[m.State()]
	fmt.Fprintf(a.stdout, "%s snapshot %s saved in %s\n", state, m.ID, repo)
	printReasons(a.stdout, m)
	return printFacts(a.stdout, m)
}

// printReasons says why a snapshot is not verified.
func printReasons(w io.Writer, m *backup.Manifest) {
	for _, why := range m.Suspect {
		fmt.Fprintf(w, "  SUSPECT: %s\n", why)
	}
	for _, why := range m.Unconfirmed {
		fmt.Fprintf(w, "  UNCONFIRMED: %s\n", why)
	}
}

func printFacts(w io.Writer, m *backup.Manifest) error {
	t := newColumns(w)
	t.row("  cluster", fmt.Sprintf("%s (%s, timeline %s)", m.Cluster, m.ClusterID, m.Timeline))
	t.row("  revision", fmt.Sprintf("%d, compacted at %d", m.Revision, m.CompactRevision))
	t.row("  from", fmt.Sprintf("member %s (%s) at %s, etcd %s", m.Source.Name, m.Source.ID, m.Endpoint, m.EtcdVersion))
	t.row("  content", fmt.Sprintf("%d keys, %d leases, HashKV %d", m.Keys, m.Leases, m.HashKV.Hash))
	t.row("  size", fmt.Sprintf("%s, stored %s (%s)", humanize.IBytes(uint64(m.Plain.Bytes)),
		humanize.IBytes(uint64(m.Stored.Bytes)), m.Encoding))
	for _, h := range m.MemberHashes {
		text := h.Result
		if h.Detail != "" {
			text += ": " + h.Detail
		}
		t.row("  HashKV of "+h.MemberID.String(), text)
	}
	if len(m.MemberHashes) == 0 {
		t.row("  HashKV", "not compared with the members")
	}
	for _, al := range m.Alarms {
		t.row("  alarm", fmt.Sprintf("%s of member %s", al.Type, al.MemberID))
	}
	if m.AuthEnabled {
		t.row("  auth", "enabled")
	}
	if took := m.FinishedAt.Sub(m.StartedAt); took > 0 {
		t.row("  took", took.Round(time.Millisecond).String())
	}
	return t.flush()
}
