package daemon

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sys/unix"

	"github.com/etcd-backupd/backupd/internal/snapshot"
)

// gauges are what is true of the daemon and its clusters at the moment of the
// scrape. They survive a restart, for they come from the repositories.
type gauges struct{ daemon *Daemon }

// Describe sends nothing: which metrics there are depends on what is known.
func (g *gauges) Describe(chan<- *prometheus.Desc) {}

// Collect sends everything known.
func (g *gauges) Collect(ch chan<- prometheus.Metric) {
	s := sender{ch}
	d := g.daemon
	now := d.opts.Now()
	v := d.opts.Version
	s.send("backupd_build_info", "What is running.", 1, labels{{"version", v.Version}, {"revision", v.Revision}, {"go_version", v.Go}})
	ok, at := d.loaded.state()
	s.send("backupd_config_last_reload_successful", "1 if the configuration that was read last is in use.", truth(ok), nil)
	s.time("backupd_config_last_reload_success_timestamp_seconds", "When the configuration in use was read.", at, nil)
	plan := d.plan()
	for _, guard := range d.all() {
		guard.collect(s, now, plan[jobName(kindBackup, guard.conf.Name)].Next)
	}
	d.collectSpool(s)
	for _, file := range d.config().CertificateFiles() {
		if end, err := expiry(file); err == nil {
			s.time("backupd_certificate_expiry_timestamp_seconds", "When the first certificate in a file expires.", end, labels{{"file", file}})
		}
	}
}

// collect sends what is known of one cluster.
func (g *guard) collect(s sender, now, next time.Time) {
	st := g.known.now()
	name := labels{{"cluster", g.conf.Name}}
	s.send("backupd_cluster_info", "The clusters that are guarded.", 1,
		append(name, label{"repository", g.conf.Repository}, label{"schedule", g.line.String()}))
	s.time("backupd_last_success_timestamp_seconds", "When a verified snapshot last held everything the cluster had.", st.confirmed, name)
	s.time("backupd_last_attempt_timestamp_seconds", "When a backup last began.", st.attempted, name)
	s.time("backupd_next_run_timestamp_seconds", "When the next backup is due.", next, name)
	s.send("backupd_schedule_interval_seconds", "The longest time between two runs of the schedule.", g.longest.Seconds(), name)
	for phase, d := range st.phases {
		s.send("backupd_last_run_phase_duration_seconds", "How long each phase of the last snapshot took; phases overlap.", d.Seconds(),
			append(name, label{"phase", phase}))
	}
	s.time("backupd_last_verification_timestamp_seconds", "When a stored snapshot was last verified as a whole.", st.verified, name)
	if !st.verified.IsZero() {
		s.send("backupd_last_verification_successful", "1 if the last verification found no fault, and no fault is left of others.",
			truth(st.verification == nil && len(st.defects) == 0), name)
	}
	s.time("backupd_last_prune_timestamp_seconds", "When retention last ran without an error.", st.pruned, name)
	if st.read.IsZero() {
		return
	}
	for state, n := range map[string]int{"verified": st.catalog.verified, "suspect": st.catalog.suspect} {
		s.send("backupd_repository_snapshots", "Snapshots in the repository.", float64(n), append(name, label{"state", state}))
	}
	s.send("backupd_repository_bytes", "Stored bytes of all snapshots of the cluster.", float64(st.catalog.storedBytes), name)
	s.send("backupd_snapshot_suspect", "1 if something speaks against the newest snapshot.", truth(st.catalog.newest.Suspect), name)
	if m := st.newest; m != nil {
		s.send("backupd_snapshot_age_seconds", "Age of the newest verified snapshot.", now.Sub(m.StartedAt).Seconds(), name)
		s.send("backupd_snapshot_plain_bytes", "Size of the database in the newest verified snapshot.", float64(m.Plain.Bytes), name)
		s.send("backupd_snapshot_stored_bytes", "Stored size of the newest verified snapshot.", float64(m.Stored.Bytes), name)
		s.send("backupd_snapshot_revision", "Revision of the newest verified snapshot.", float64(m.Revision), name)
	}
}

// collectSpool sends what is in the spool folder and waits to be stored.
func (d *Daemon) collectSpool(s sender) {
	folder := d.spool()
	waiting := map[string]int{} // also of clusters that are guarded no more
	for _, g := range d.all() {
		waiting[g.conf.Name] = 0
	}
	if pending, err := snapshot.Pending(folder); err == nil {
		for _, p := range pending {
			waiting[p.Cluster]++
		}
	}
	for cluster, n := range waiting {
		s.send("backupd_pending_uploads", "Snapshots that were taken and wait in the spool to be stored.", float64(n), labels{{"cluster", cluster}})
	}
	if used, err := snapshot.SpoolBytes(folder); err == nil {
		s.send("backupd_spool_bytes", "Bytes in the spool.", float64(used), nil)
	}
	var st unix.Statfs_t
	if unix.Statfs(folder, &st) == nil {
		s.send("backupd_spool_free_bytes", "Bytes free on the file system of the spool.", float64(st.Bavail)*float64(st.Bsize), nil)
	}
	if limit := d.config().Daemon.Spool.MaxBytes; limit > 0 {
		s.send("backupd_spool_limit_bytes", "The most bytes the spool may take.", float64(limit), nil)
	}
}

// expiry returns when the first of a file's certificates expires.
func expiry(file string) (time.Time, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return time.Time{}, fmt.Errorf("read certificate: %w", err)
	}
	var first time.Time
	for {
		block, rest := pem.Decode(raw)
		if block == nil {
			break
		}
		raw = rest
		if block.Type != "CERTIFICATE" {
			continue
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return time.Time{}, fmt.Errorf("parse certificate in %s: %w", file, err)
		}
		if first.IsZero() || c.NotAfter.Before(first) {
			first = c.NotAfter
		}
	}
	if first.IsZero() {
		return first, errors.New("no certificate in " + file)
	}
	return first, nil
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
	s.ch <- prometheus.MustNewConstMetric(prometheus.NewDesc(name, help, names, nil), prometheus.GaugeValue, value, values...)
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
