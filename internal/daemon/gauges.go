package daemon

import (
	"cmp"
	"errors"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/certs"
	"github.com/etcd-backupd/backupd/internal/daemon/counters"
	"github.com/etcd-backupd/backupd/internal/duty"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/server"
)

// gauges are what is true of the daemon and its clusters at the moment of the
// scrape. They survive a restart, for they come from the repositories, and until those
// were read from the records.
type gauges struct {
	fleet   *fleet
	jobs    *jobs
	loaded  *reloads // nil: one slot, which never loads again
	version Version
	now     func() time.Time
	log     *slog.Logger
}

// Describe sends nothing: which metrics there are depends on what is known.
func (g *gauges) Describe(chan<- *prometheus.Desc) {}

// Collect sends everything known.
func (g *gauges) Collect(ch chan<- prometheus.Metric) {
	s := counters.Sender{C: ch}
	now, v := g.now(), g.version
	s.Send("backupd_build_info", "What is running.", 1,
		counters.Labels{{"version", v.Version}, {"revision", v.Revision}, {"go_version", v.Go}})
	if g.loaded != nil {
		ok, at := g.loaded.state()
		s.Send("backupd_config_last_reload_successful", "1 if the configuration that was read last is in use.",
			counters.Truth(ok), nil)
		s.Time("backupd_config_last_reload_success_timestamp_seconds", "When the configuration in use was read.", at, nil)
	}
	plan := g.jobs.plan()
	for _, guard := range g.fleet.all() {
		g.collect(s, guard, now, plan[jobName(kindBackup, guard.Key)].Next)
	}
	g.collectSpool(s)
	for _, file := range g.fleet.config().CertificateFiles() {
		if all, err := certs.Read(file); err == nil {
			s.Time("backupd_certificate_expiry_timestamp_seconds", "When the first certificate in a file expires.",
				certs.FirstExpiry(all), counters.Labels{{"file", file}})
		}
	}
}

// collect sends what is known of one cluster.
func (gs *gauges) collect(s counters.Sender, g *guard, now, next time.Time) {
	f := g.Known.Now()
	name := counters.Labels{{"repository", g.Repository}, {"cluster", g.Cluster}}
	s.Send("backupd_cluster_info", "The clusters that are guarded.", 1,
		append(name, [2]string{"schedule", g.backup.Line.String()}))
	s.Time("backupd_protected_since_timestamp_seconds", "Since when the cluster is guarded.", f.Since, name)
	s.Send("backupd_repository_read", "1 if this process has read the repository; 0: what is told of the cluster is "+
		"what an earlier process knew.", counters.Truth(!f.Read.IsZero()), name)
	s.Time("backupd_repository_last_read_timestamp_seconds", "When the repository was last read.", f.LastRead(), name)
	s.Time("backupd_last_success_timestamp_seconds",
		"When a verified snapshot last held everything the cluster had.", f.Confirmed, name)
	s.Time("backupd_last_attempt_timestamp_seconds", "When a backup last began.", f.Attempted, name)
	s.Time("backupd_next_run_timestamp_seconds", "When the next backup is due.", f.Pauses.Due(next, now), name)
	s.Send("backupd_schedule_interval_seconds", "The longest time between two runs of the schedule.",
		g.backup.Longest.Seconds(), name)
	for phase, d := range gs.jobs.board.Last(server.Key(g.Key)) {
		s.Send("backupd_last_run_phase_duration_seconds",
			"How long each phase of the last snapshot took; phases overlap.", d.Seconds(),
			append(name, [2]string{"phase", phase}))
	}
	s.Send("backupd_member_hangs", "1 if a member answers nothing because it is defragmented beside a snapshot stream.",
		counters.Truth(f.Hung != nil), name)
	s.Time("backupd_last_prune_timestamp_seconds", "When retention last ran without an error.", f.Pruned, name)
	var summary repository.Summary
	if f.Overview != nil {
		summary = f.Overview.Summary(now)
	}
	verified := f.LastVerified(g.Rereading, now)
	s.Time("backupd_last_verification_timestamp_seconds",
		"When a stored snapshot was last verified, by any process.", verified, name)
	s.Time("backupd_verification_deadline_timestamp_seconds",
		"When scheduled verifications count as missing.", f.VerifyBy(g.Rereading, now), name)
	if broken := f.VerificationFailed(g.Rereading, now); !verified.IsZero() || broken || summary.Damaged > 0 {
		s.Send("backupd_last_verification_successful",
			"1 if the last verification found no fault, and no snapshot is known to be damaged.",
			counters.Truth(!broken && summary.Damaged == 0), name)
	}
	if !f.Read.IsZero() {
		until := 0.0
		if p := f.Pauses.Now(now); p != nil {
			until = float64(p.Until.Unix())
		}
		s.Send("backupd_cluster_paused_until_timestamp_seconds",
			"Until when somebody has paused the cluster; 0: it is not paused.", until, name)
		s.Send("backupd_snapshots_lost",
			"Snapshots that are gone since the daemon saw them, and that backupd did not remove.", float64(len(f.Lost)), name)
		collectStored(s, summary, f.Newest(), now, name)
		collectHistory(s, f.Overview, name)
	}
}

// collectStored sends what is stored of one cluster.
func collectStored(
	s counters.Sender, sum repository.Summary, newest *backup.Manifest, now time.Time, name counters.Labels,
) {
	for state, n := range map[backup.State]int{
		backup.Verified: sum.Verified, backup.Unconfirmed: sum.Unconfirmed, backup.Suspect: sum.Suspect,
		backup.Damaged: sum.Damaged,
	} {
		s.Send("backupd_repository_snapshots", "Snapshots in the repository.", float64(n),
			append(name, [2]string{"state", string(state)}))
	}
	s.Send("backupd_repository_bytes", "Stored bytes of all snapshots of the cluster.", float64(sum.StoredBytes), name)
	s.Send("backupd_snapshot_suspect", "1 if the newest snapshot is suspect or damaged.",
		counters.Truth(sum.Newest != nil && !sum.Newest.State().Usable()), name)
	if newest == nil {
		return
	}
	s.Send("backupd_snapshot_age_seconds", "Age of the newest verified snapshot.",
		now.Sub(newest.StartedAt).Seconds(), name)
	s.Send("backupd_snapshot_plain_bytes", "Size of the database in the newest verified snapshot.",
		float64(newest.Plain.Bytes), name)
	s.Send("backupd_snapshot_stored_bytes", "Stored size of the newest verified snapshot.",
		float64(newest.Stored.Bytes), name)
	s.Send("backupd_snapshot_revision", "Revision of the newest verified snapshot.", float64(newest.Revision), name)
}

// collectHistory sends whether it is known which history is the present one.
func collectHistory(s counters.Sender, o *repository.Overview, name counters.Labels) {
	var question *repository.HistoryError
	if o != nil {
		_, err := o.Timelines.Present()
		errors.As(err, &question)
	}
	s.Send("backupd_history_unaccepted",
		"1 if the newest history of the cluster replaces another and nobody has accepted it.",
		counters.Truth(question != nil && !question.Both), name)
	s.Send("backupd_history_rivals", "1 if two histories of the cluster both go on: two clusters have one name.",
		counters.Truth(question != nil && question.Both), name)
}

// collectSpool sends what is in the spool folder and waits to be stored.
func (g *gauges) collectSpool(s counters.Sender) {
	folder := spoolOf(g.fleet.config(), g.log)
	waiting := map[duty.Key]int{} // also of clusters that are no longer guarded
	names := map[string]string{}  // of repositories, by their ids
	places := map[string]string{} // likewise, by the names of the clusters
	for _, guard := range g.fleet.all() {
		waiting[guard.Key] = 0
		names[guard.Known.Now().RepositoryID] = guard.Repository
		places[guard.Cluster] = guard.Repository
	}
	if pending, err := folder.Waiting(); err == nil {
		for _, p := range pending {
			// An id that nobody knows is of a repository that was replaced: an alert of the
			// cluster must count what waits for it.
			name := cmp.Or(names[p.Repository], places[p.Capture.Cluster])
			waiting[duty.Key{Repository: name, Cluster: p.Capture.Cluster}]++
		}
	}
	for k, n := range waiting {
		s.Send("backupd_pending_uploads", "Snapshots that were taken and wait in the spool to be stored.", float64(n),
			counters.Labels{{"repository", k.Repository}, {"cluster", k.Cluster}})
	}
	if used, err := folder.Bytes(); err == nil {
		s.Send("backupd_spool_bytes", "Bytes in the spool.", float64(used), nil)
	}
	if fs, reserve, err := folder.Room(); err == nil {
		s.Send("backupd_spool_free_bytes", "Bytes free on the file system of the spool.", float64(fs.Free), nil)
		s.Send("backupd_spool_reserve_bytes", "Bytes that stay free there for others.", float64(reserve), nil)
	}
	if folder.Limit > 0 {
		s.Send("backupd_spool_limit_bytes", "The most bytes the spool may take.", float64(folder.Limit), nil)
	}
}
