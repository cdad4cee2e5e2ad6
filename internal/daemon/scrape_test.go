package daemon_test

import (
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/daemon"
)

// scrape returns the daemon's metrics as Prometheus reads them.
func scrape(t *testing.T, d *daemon.Daemon) string {
	t.Helper()
	rec := httptest.NewRecorder()
	d.Metrics().ServeHTTP(rec, httptest.NewRequest("GET", "/metrics", nil))
	if rec.Code != 200 {
		t.Fatalf("metrics: %d %s", rec.Code, rec.Body)
	}
	return rec.Body.String()
}

// series returns the lines of all metrics that hold text.
func series(t *testing.T, d *daemon.Daemon, text string) []string {
	t.Helper()
	return slices.DeleteFunc(strings.Split(scrape(t, d), "\n"), func(line string) bool {
		return strings.HasPrefix(line, "#") || !strings.Contains(line, text)
	})
}

// counts tells whether a metric has a value.
func counts(t *testing.T, d *daemon.Daemon, line string) bool {
	t.Helper()
	return slices.Contains(strings.Split(scrape(t, d), "\n"), line)
}

// reloaded tells whether the configuration that was read last is in use.
func reloaded(t *testing.T, d *daemon.Daemon) bool {
	t.Helper()
	return counts(t, d, "backupd_config_last_reload_successful 1")
}
