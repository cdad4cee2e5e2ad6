package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/companion"
	"github.com/etcd-backupd/backupd/internal/health"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/snapshot"
	"github.com/etcd-backupd/backupd/internal/snapshot/compare"
)

type backupOptions struct {
	repo           repoFlags
	encoding       encodingFlags
	spool          spoolFlags
	hashCheck      string
	companions     companionFlags
	config         string
	once           bool
	allowNearQuota bool
	init           bool
	metricsFile    string
}

func newBackupCommand(a *app) *cobra.Command {
	var o backupOptions
	cmd := &cobra.Command{
		Use:   "backup --repo REPO --cluster NAME | --config FILE",
		Short: "Take one verified snapshot into a repository",
		Long: `Take one verified snapshot into a repository.

The database of the best member is received into a local spool and compared with
etcd's SHA-256. Meanwhile it is compressed, encrypted and uploaded. Every page and
record is inspected in a child process, and the stored object is read back. HashKV is
compared with one voting member, another one each time. It stops that member for one to
two seconds for each GB, so a follower is asked, and nobody while another member is
slow. The manifest is written last: from then on the
backup exists.

A snapshot whose content is in doubt (a member holds other data, a CORRUPT alarm is
active) is stored and marked suspect, and the exit code is 4. A snapshot that is whole
but that no voting member could be compared with is stored as unconfirmed, with the
reasons, and the exit code is 0; it is 1 if no quorum confirmed either that it holds
all that the cluster had: the member may be cut off from the others.

The repository must be there: see 'backupd init'. With --init the backup makes it, which
is right for a bucket, and wrong where a disk may not be mounted.

With --companion the files of this host that a restore needs besides the data are stored with
the snapshot: certificates, settings, manifests of static pods. They are listed with their
fingerprints by 'backupd show', and come back by 'backupd companions'. Without recipients this
is refused (exit code 6). A file that cannot be read costs no snapshot: it is stored without
it, and the exit code is 1. The same holds for Secrets of Kubernetes, which --companion-secret
names: they are read by name, as the service account of the pod or by --kubeconfig, within
five seconds.

Where the newest snapshot is encrypted and no recipient is given, the backup is refused
(exit code 6): say --unencrypted to store this one in plain text all the same.

With --config the command does the daemon's work of one slot, for all clusters of the
configuration or for those named with --cluster a,b: it stores what is pending in the
spool, skips clusters that have not changed or are paused (see 'backupd pause'), prunes old
snapshots and sends notifications. Use it in a CronJob or a timer.

With --metrics-file such a run replaces a file by its metrics, whether it succeeds or not,
with the names of the daemon. The textfile collector of Prometheus' node exporter reads it,
so the same alerts tell that backups fail or have stopped. The folder must be there. What a
run cannot know, because the store is away, stays as the file had it. A file that backupd did
not write, or that is damaged, is refused before anything is done (exit code 6). If the file
cannot be written, the backup is done all the same, and the exit code is at least 1.

` + exitHelp,
		Example: `  backupd backup --repo file:///var/backups/etcd --cluster prod
  backupd backup --init --repo s3://backups/etcd --cluster prod --recipient age1... \
    --endpoints https://10.0.0.1:2379,https://10.0.0.2:2379 \
    --cacert ca.crt --cert client.crt --key client.key
  backupd backup --once --config /etc/backupd/backupd.yaml
  backupd backup --once --config /etc/backupd/backupd.yaml \
    --metrics-file /var/lib/prometheus/node-exporter/backupd.prom`,
		Args:        arguments(0, "no argument"),
		Annotations: needsEtcd,
		RunE: func(cmd *cobra.Command, _ []string) error {
			misplaced := cmd.Flags().Lookup("metrics-file").Annotations[fromEnv] == nil && o.metricsFile != ""
			switch {
			case misplaced && (o.config == "" || !o.once):
				return &usageError{errors.New(
					"--metrics-file tells of one slot of a configuration: give --once and --config, or leave it out")}
			case o.config == "" && o.repo.repo == "":
				return notTold(cmd, errNoRepository)
			case o.config != "":
				return runOnce(cmd, a, o)
			case o.once:
				return &usageError{errors.New(
					"--once does one slot of a configuration: give --config (or BACKUPD_CONFIG), or leave --once out")}
			}
			return runBackup(cmd, a, o)
		},
	}
	o.repo.register(cmd)
	f := cmd.Flags()
	o.encoding.register(cmd)
	o.spool.register(cmd, "local copy")
	f.StringVar(&o.hashCheck, "hash-check", compare.One.String(),
		"which voting members HashKV is compared with: one (another one each time), all (one after the other), "+
			"off (the snapshot is stored as unconfirmed)")
	mustRegister(cmd.RegisterFlagCompletionFunc("hash-check", fixed(compare.Policies...)))
	o.companions.register(cmd)
	registerStream(cmd, a, &o.allowNearQuota)
	registerConfig(cmd, &o.config)
	f.BoolVar(&o.once, "once", false,
		"do one slot and end: says explicitly that this is no daemon (needs --config)")
	f.StringVar(&o.metricsFile, "metrics-file", "",
		"write the metrics of the slot to this file, for the node exporter's textfile collector (needs --once --config)")
	f.BoolVar(&o.init, "init", false, "make the repository if there is none (a folder must be there)")
	return cmd
}

func runBackup(cmd *cobra.Command, a *app, o backupOptions) error {
	ctx := cmd.Context()
	encoding, err := o.encoding.codec(a)
	if err != nil {
		return err
	}
	hashes, err := compare.ParsePolicy(o.hashCheck)
	if err != nil {
		return &usageError{fmt.Errorf("--%w", err)}
	}
	companions, err := o.companions.files(cmd, encoding.Recipients)
	if err != nil {
		return err
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
		Source: source, Codec: encoding,
		Spool: o.spool.folder(), Hashes: hashes, Tool: version().String(), Log: a.log.slog,
		Progress: a.progress.report, AllowNearQuota: o.allowNearQuota, Companions: companions,
	}
	in := repo.Cluster(o.repo.cluster)
	notePause(ctx, a, in)
	all, err := repository.ReadTimelines(ctx, in)
	if err == nil {
		err = o.encoding.refusePlain(cmd, all)
	}
	if err != nil {
		return err
	}
	m, history, err := takeInto(ctx, t, in, all)
	if err != nil {
		return err
	}
	a.progress.stop()
	if err := printTaken(a, m, o.repo.repo); err != nil {
		return err
	}
	if m.State() == backup.Suspect {
		return backup.WithHint(backup.Corruptf("snapshot %s is stored, but suspect", m.ID), // why stands in the answer
			"keep older snapshots; find out which member is right (etcdctl endpoint hashkv --cluster) "+
				"before you restore this one")
	}
	if err := explainHistory(cmd, history); err != nil {
		return err
	}
	return cmp.Or(health.NotCurrent(m), companion.Incomplete(m))
}

// openOrMake opens the repository. If there is none it makes it, where that is allowed
// and no certain one is expected, and says so.
func (r *repoFlags) openOrMake(ctx context.Context, a *app, may bool) (*repository.Repository, error) {
	repo, err := r.openToWrite(ctx, a)
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

// takeInto takes one snapshot into a cluster's part of a repository that holds these
// histories. history is the error if nobody knows which of them is the present one.
func takeInto(
	ctx context.Context, t *snapshot.Taker, in *repository.Cluster, before repository.Timelines,
) (m *backup.Manifest, history, err error) {
	to := snapshot.Target{Cluster: in, Timelines: before}
	survey, err := t.Source.Survey(ctx)
	if err != nil {
		return nil, nil, err
	}
	if t.Log != nil {
		snapshot.LogSurvey(t.Log, survey)
		defer snapshot.Announce(ctx, to, t.Tool, t.Log)()
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
	if printed, err := a.document(kindSnapshot, newShown(repository.RowOf(m, time.Now()), m)); printed {
		return err
	}
	state := map[backup.State]string{
		backup.Verified: "Verified", backup.Unconfirmed: "Unconfirmed", backup.Suspect: "SUSPECT",
	}[m.State()]
	fmt.Fprintf(a.stdout, "%s snapshot %s saved in %s\n", state, m.ID, repo)
	printReasons(a.stdout, m)
	return errors.Join(printFacts(a.stdout, m), printCompanions(a.stdout, m.Companions))
}

// printReasons says why a snapshot is not verified, and what people should know of it.
func printReasons(w io.Writer, m *backup.Manifest) {
	for _, why := range m.Suspect {
		fmt.Fprintf(w, "  SUSPECT: %s\n", why)
	}
	for _, why := range m.Unconfirmed {
		fmt.Fprintf(w, "  UNCONFIRMED: %s\n", why)
	}
	for _, why := range m.Cautions {
		fmt.Fprintf(w, "  caution: %s\n", why)
	}
}

func printFacts(w io.Writer, m *backup.Manifest) error {
	t := newColumns(w)
	id := m.ClusterID.String()
	if m.ClusterID == 0 {
		id = "its id is not known"
	}
	t.row("  cluster", fmt.Sprintf("%s (%s, timeline %s)", m.Cluster, id, m.Timeline))
	compacted := "never compacted"
	if m.CompactRevision > 0 {
		compacted = fmt.Sprintf("compacted at %d", m.CompactRevision)
	}
	t.row("  revision", fmt.Sprintf("%d, %s", m.Revision, compacted))
	who := fmt.Sprintf("member %s (%s)", m.Source.Name, m.Source.ID)
	if m.Source.ID == 0 {
		who = "some member"
	}
	if m.Imported != nil {
		t.row("  from", fmt.Sprintf("the file %s, of etcd %s or older", m.Imported.File, m.EtcdVersion))
		t.row("  taken", fmt.Sprintf("%s, by %s", m.StartedAt.Format(time.RFC3339), m.Imported.TimeFrom))
	} else {
		t.row("  from", fmt.Sprintf("%s at %s, etcd %s", who, m.Endpoint, m.EtcdVersion))
	}
	t.row("  content", fmt.Sprintf("%s, %s, HashKV %d", count(int(m.Keys), "key", "keys"),
		count(int(m.Leases), "lease", "leases"), m.HashKV.Hash))
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
	if m.V2Keys {
		t.row("  v2 keys", "the member serves some, and no snapshot holds them")
	}
	if took := m.FinishedAt.Sub(m.StartedAt); took > 0 && m.Imported == nil {
		t.row("  took", took.Round(time.Millisecond).String())
	}
	return t.flush()
}
