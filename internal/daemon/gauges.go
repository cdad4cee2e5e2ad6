package daemon

import (
	"cmp"
	"errors"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/certs"
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
	s := sender{ch}
	now, v := g.now(), g.version
	s.send("backupd_build_info", "What is running.", 1,
		labels{{"version", v.Version}, {"revision", v.Revision}, {"go_version", v.Go}})
	if g.loaded != nil {
		ok, at := g.loaded.state()
		s.send("backupd_config_last_reload_successful", "1 if the configuration that was read last is in use.",
			truth(ok), nil)
		s.time("backupd_config_last_reload_success_timestamp_seconds", "When the configuration in use was read.", at, nil)
	}
	plan := g.jobs.plan()
	for _, guard := range g.fleet.all() {
		g.collect(s, guard, now, plan[jobName(kindBackup, guard.Key)].Next)
	}
	g.collectSpool(s)
	for _, file := range g.fleet.config().CertificateFiles() {
		if all, err := certs.Read(file); err == nil {
			s.time("backupd_certificate_expiry_timestamp_seconds", "When the first certificate in a file expires.",
				certs.FirstExpiry(all), labels{{"file", file}})
		}
	}
}

// collect sends what is known of one cluster.
func (gs *gauges) collect(s sender, g *guard, now, next time.Time) {
	f := g.Known.Now()
	name := labels{{"repository", g.Repository}, {"cluster", g.Cluster}}
	s.send("backupd_cluster_info", "The clusters that are guarded.", 1,
		append(name, label{"schedule", g.backup.Line.String()}))
	s.time("backupd_protected_since_timestamp_seconds", "Since when the cluster is guarded.", f.Since, name)
	s.send("backupd_repository_read", "1 if this process has read the repository; 0: what is told of the cluster is what "+
		"an earlier process knew.", truth(!f.Read.IsZero()), name)
	s.time("backupd_repository_last_read_timestamp_seconds", "When the repository was last read.", f.LastRead(), name)
	s.time("backupd_last_success_timestamp_seconds",
		"When a verified snapshot last held everything the cluster had.", f.Confirmed, name)
	s.time("backupd_last_attempt_timestamp_seconds", "When a backup last began.", f.Attempted, name)
	s.time("backupd_next_run_timestamp_seconds", "When the next backup is due.", next, name)
	s.send("backupd_schedule_interval_seconds", "The longest time between two runs of the schedule.",
		g.backup.Longest.Seconds(), name)
	for phase, d := range gs.jobs.board.Last(server.Key(g.Key)) {
		s.send("backupd_last_run_phase_duration_seconds",
			"How long each phase of the last snapshot took; phases overlap.", d.Seconds(), append(name, label{"phase", phase}))
	}
	s.send("backupd_member_hangs",
		"1 if a member answers nothing because it is defragmented beside a snapshot stream.", truth(f.Hung != nil), name)
	s.time("backupd_last_prune_timestamp_seconds", "When retention last ran without an error.", f.Pruned, name)
	var summary repository.Summary
	if f.Overview != nil {
		summary = f.Overview.Summary(now)
	}
	verified := f.LastVerified(g.Rereading, now)
	s.time("backupd_last_verification_timestamp_seconds",
		"When a stored snapshot was last verified, by any process.", verified, name)
	s.time("backupd_verification_deadline_timestamp_seconds",
		"When scheduled verifications count as missing.", f.VerifyBy(g.Rereading, now), name)
	if broken := f.VerificationFailed(g.Rereading, now); !verified.IsZero() || broken || summary.Damaged > 0 {
		s.send("backupd_last_verification_successful",
			"1 if the last verification found no fault, and no snapshot is known to be damaged.",
			truth(!broken && summary.Damaged == 0), name)
	}
	if !f.Read.IsZero() {
		s.send("backupd_snapshots_lost",
			"Snapshots that are gone since the daemon saw them, and that backupd did not remove.", float64(len(f.Lost)), name)
		collectStored(s, summary, f.Newest(), now, name)
		collectHistory(s, f.Overview, name)
	}
}

// collectStored sends what is stored of one cluster.
func collectStored(s sender, sum repository.Summary, newest *backup.Manifest, now time.Time, name labels) {
	for state, n := range map[backup.State]int{
		backup.Verified: sum.Verified, backup.Unconfirmed: sum.Unconfirmed, backup.Suspect: sum.Suspect,
		backup.Damaged: sum.Damaged,
	} {
		s.send("backupd_repository_snapshots", "Snapshots in the repository.", float64(n),
			append(name, label{"state", string(state)}))
	}
	s.send("backupd_repository_bytes", "Stored bytes of all snapshots of the cluster.", float64(sum.StoredBytes), name)
	s.send("backupd_snapshot_suspect", "1 if the newest snapshot is suspect or damaged.",
		truth(sum.Newest != nil && !sum.Newest.State().Usable()), name)
	if newest == nil {
		return
	}
	s.send("backupd_snapshot_age_seconds", "Age of the newest verified snapshot.",
		now.Sub(newest.StartedAt).Seconds(), name)
	s.send("backupd_snapshot_plain_bytes", "Size of the database in the newest verified snapshot.",
		float64(newest.Plain.Bytes), name)
	s.send("backupd_snapshot_stored_bytes", "Stored size of the newest verified snapshot.",
		float64(newest.Stored.Bytes), name)
	s.send("backupd_snapshot_revision", "Revision of the newest verified snapshot.", float64(newest.Revision), name)
}

// collectHistory sends whether it is known which history is the present one.
func collectHistory(s sender, o *repository.Overview, name labels) {
	var question *repository.HistoryError
	if o != nil {
		_, err := o.Timelines.Present()
		errors.As(err, &question)
	}
	s.send("backupd_history_unaccepted",
		"1 if the newest history of the cluster replaces another and nobody has accepted it.",
		truth(question != nil && !question.Both), name)
	s.send("backupd_history_rivals", "1 if two histories of the cluster both go on: two clusters have one name.",
		truth(question != nil && question.Both), name)
}

// collectSpool sends what is in the spool folder and waits to be stored.
func (g *gauges) collectSpool(s sender) {
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
		s.send("backupd_pending_uploads", "Snapshots that were taken and wait in the spool to be stored.", float64(n),
			labels{{"repository", k.Repository}, {"cluster", k.Cluster}})
	}
	if used, err := folder.Bytes(); err == nil {
		s.send("backupd_spool_bytes", "Bytes in the spool.", float64(used), nil)
	}
	if fs, reserve, err := folder.Room(); err == nil {
		s.send("backupd_spool_free_bytes", "Bytes free on the file system of the spool.", float64(fs.Free), nil)
		s.send("backupd_spool_reserve_bytes", "Bytes that stay free there for others.", float64(reserve), nil)
	}
	if folder.Limit > 0 {
		s.send("backupd_spool_limit_bytes", "The most bytes the spool may take.", float64(folder.Limit), nil)
	}
}

type label struct{ name, value string }

type labels []label

// sender sends gauges.
type sender struct{ ch chan<- prometheus.Metric }

func (s sender) send(name, help string, value float64, ls labels) {
	names, values := make([]string, len(ls)), make([]string, len(ls))
	for i, l := range ls {
		names[i], values[i] = l.name, l.value
	}
	desc := prometheus.NewDesc(name, help, names, nil)
	s.ch <- prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, value, values...)
}

// time sends a moment, unless it never came.
func (s sender) time(name, help string, t time.Time, ls labels) {
	if !t.IsZero() {
		s.send(name, help, float64(t.UnixMilli())/1000, ls)
	}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
