// Package counters counts what happens while the daemon runs, as metrics for Prometheus.
package counters

import (
	"context"
	"errors"
	"io/fs"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/server"
	"github.com/etcd-backupd/backupd/internal/storage"
)

// Counters are all counters of the daemon, with the registry that exposes them. Their
// methods may be called concurrently. What is true at a moment is no matter of theirs: see
// [Counters.Register].
type Counters struct {
	registry      *prometheus.Registry // our own: etcd's libraries fill the default one
	backups       *prometheus.CounterVec
	disagreements *prometheus.CounterVec
	verifications *prometheus.CounterVec
	requests      *prometheus.CounterVec
	errors        *prometheus.CounterVec
	created       *prometheus.CounterVec
	removed       *prometheus.CounterVec
	pruneErrors   *prometheus.CounterVec
	notifications *prometheus.CounterVec
}

// New returns counters at zero.
func New() *Counters {
	m := &Counters{registry: prometheus.NewRegistry()}
	counter := func(name, help string, labels ...string) *prometheus.CounterVec {
		c := prometheus.NewCounterVec(prometheus.CounterOpts{Name: name, Help: help}, labels)
		m.registry.MustRegister(c)
		return c
	}
	m.backups = counter("backupd_backups_total",
		"Attempts to back up, by what became of them: verified, unconfirmed, suspect, skipped, failed.",
		"repository", "cluster", "result")
	m.disagreements = counter("backupd_hashkv_disagreements_total",
		"Answers of members whose HashKV was not the snapshot's.", "repository", "cluster")
	m.verifications = counter("backupd_verifications_total",
		"Verifications of stored snapshots, by what they found: ok, defect, failed.", "repository", "cluster", "result")
	m.requests = counter("backupd_store_requests_total",
		"Operations on a repository that ended.", "repository", "operation")
	m.errors = counter("backupd_store_errors_total",
		"Operations on a repository that failed.", "repository", "operation", "code")
	m.created = counter("backupd_repository_created_total",
		"Repositories that were made, because there was none and create-if-missing allows it.", "repository")
	m.removed = counter("backupd_prune_removed_total", "Snapshots removed by retention.", "repository", "cluster")
	m.pruneErrors = counter("backupd_prune_errors_total", "Prunes that failed.", "repository", "cluster")
	m.notifications = counter("backupd_notifications_total",
		"Notifications, by what became of them: sent, dropped.", "kind", "result")
	m.prepareNotifications()
	m.registry.MustRegister(collectors.NewGoCollector(),
		collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Handler exposes all metrics.
func (m *Counters) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{Registry: m.registry})
}

// Gatherer returns all metrics as values.
func (m *Counters) Gatherer() prometheus.Gatherer { return m.registry }

// Register exposes what is true at the moment of a scrape, besides the counters.
func (m *Counters) Register(c prometheus.Collector) { m.registry.MustRegister(c) }

// Prepare makes the counters of a cluster appear before anything is counted, so
// that the first failure is an increase.
func (m *Counters) Prepare(k server.Key) {
	for _, result := range []string{"verified", "unconfirmed", "suspect", "skipped", "failed"} {
		m.backups.WithLabelValues(k.Repository, k.Cluster, result)
	}
	for _, result := range []string{"ok", "defect", "failed"} {
		m.verifications.WithLabelValues(k.Repository, k.Cluster, result)
	}
	m.created.WithLabelValues(k.Repository)
	for _, c := range []*prometheus.CounterVec{m.disagreements, m.removed, m.pruneErrors} {
		c.WithLabelValues(k.Repository, k.Cluster)
	}
}

// receivers are the kinds of receivers of notifications.
var receivers = []string{"webhook", "slack", "healthchecks", "command"}

// prepareNotifications makes the counters of notifications appear, for the same
// reason.
func (m *Counters) prepareNotifications() {
	for _, kind := range receivers {
		for _, result := range []string{"sent", "dropped"} {
			m.notifications.WithLabelValues(kind, result)
		}
	}
}

// Forget drops the counters of a cluster that is no longer guarded.
func (m *Counters) Forget(k server.Key) {
	for _, c := range []*prometheus.CounterVec{m.backups, m.verifications, m.disagreements, m.removed, m.pruneErrors} {
		c.DeletePartialMatch(prometheus.Labels{"repository": k.Repository, "cluster": k.Cluster})
	}
}

// ForgetRepository drops the counters of a repository that is used no more.
func (m *Counters) ForgetRepository(name string) {
	for _, c := range []*prometheus.CounterVec{m.requests, m.errors, m.created} {
		c.DeletePartialMatch(prometheus.Labels{"repository": name})
	}
}

// Skipped counts a try of a backup that needed no snapshot.
func (m *Counters) Skipped(k server.Key) { m.attempt(k, "skipped") }

// Failed counts a try of a backup that stored nothing.
func (m *Counters) Failed(k server.Key) { m.attempt(k, "failed") }

func (m *Counters) attempt(k server.Key, result string) {
	m.backups.WithLabelValues(k.Repository, k.Cluster, result).Inc()
}

// Stored counts a snapshot that was stored.
func (m *Counters) Stored(k server.Key, taken *backup.Manifest) {
	m.attempt(k, string(taken.State()))
	for _, h := range taken.MemberHashes {
		if h.Result == backup.HashDiffers {
			m.disagreements.WithLabelValues(k.Repository, k.Cluster).Inc()
		}
	}
}

// Verified counts a verification of a stored snapshot by its error; nil: it is whole.
func (m *Counters) Verified(k server.Key, err error) {
	result := "ok"
	switch {
	case errors.Is(err, backup.ErrCorrupt):
		result = "defect"
	case err != nil:
		result = "failed"
	}
	m.verifications.WithLabelValues(k.Repository, k.Cluster, result).Inc()
}

// Pruned counts a prune and the snapshots that it removed.
func (m *Counters) Pruned(k server.Key, removed int, err error) {
	m.removed.WithLabelValues(k.Repository, k.Cluster).Add(float64(removed))
	if err != nil {
		m.pruneErrors.WithLabelValues(k.Repository, k.Cluster).Inc()
	}
}

// Notified counts a notification: the kind of its receiver, and whether it was sent or
// dropped.
func (m *Counters) Notified(kind, result string) { m.notifications.WithLabelValues(kind, result).Inc() }

// Store counts one operation. That something is not there, or there already, is
// an answer and no error.
func (m *Counters) Store(repository string, e storage.Event) {
	m.requests.WithLabelValues(repository, string(e.Op)).Inc()
	if e.Op == storage.OpCreate && e.Key == backup.MarkerKey && e.Err == nil {
		m.created.WithLabelValues(repository).Inc()
	}
	if e.Err == nil || errors.Is(e.Err, fs.ErrNotExist) || errors.Is(e.Err, fs.ErrExist) ||
		errors.Is(e.Err, context.Canceled) {
		return
	}
	m.errors.WithLabelValues(repository, string(e.Op), errorCode(e.Err)).Inc()
}

// errorCode puts an error into one of a few classes: labels must not multiply.
func errorCode(err error) string {
	var timeout interface{ Timeout() bool }
	switch {
	case errors.Is(err, fs.ErrPermission):
		return "permission"
	case errors.Is(err, context.DeadlineExceeded), errors.As(err, &timeout) && timeout.Timeout():
		return "timeout"
	case errors.Is(err, backup.ErrCorrupt):
		return "corrupt"
	}
	return "other"
}
