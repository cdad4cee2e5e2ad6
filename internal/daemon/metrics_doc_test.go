package daemon_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/etcd-backupd/backupd/internal/daemon"
	"github.com/etcd-backupd/backupd/internal/server"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// metric is a row of the table.
type metric struct{ Kind, Labels string }

// closed are the labels whose values the table lists.
var closed = []string{"result", "phase", "state", "operation", "code", "kind"}

// TestMetricsAreDocumented: the table of docs/daemon.md lists the metrics of a
// daemon that exposes all of them.
func TestMetricsAreDocumented(t *testing.T) {
	h := newHouse(t)
	h.etcd = testserver.StartCluster(t, testserver.Options{TLS: true}) // certificates
	h.configure("@hourly", fmt.Sprintf("    verify: {schedule: \"@daily\"}\n"+
		"    tls: {ca-file: %s, cert-file: %s, key-file: %s}",
		h.etcd.CAFile, h.etcd.CertFile, h.etcd.KeyFile))
	h.edit(h.dir+"/spool}", h.dir+"/spool, max-bytes: 1GiB}\n"+
		"  notifications: [{on: [success], command: {program: /bin/true}}]")
	d, _ := h.protected()
	h.verify(d, server.Latest)
	h.unreadable()
	if _, err := d.Snapshots(t.Context(), inMain("prod"), "", 1); err == nil {
		t.Fatal("a file was listed")
	}
	if len(series(t, d, "backupd_store_errors_total{")) == 0 {
		t.Error("an error of the store is not counted")
	}

	want, meanings := documentedMetrics(t)
	var got map[string]metric
	await(t, "a notification", func() bool {
		got = exposedMetrics(t, d, meanings)
		_, ok := got["backupd_notifications_total"]
		return ok
	})
	if diff := cmp.Diff(got, want); diff != "" {
		t.Errorf("docs/daemon.md is not what the daemon exposes (-exposed +documented):\n%s", diff)
	}
}

// documentedMetrics returns the rows of the table, and what each means.
func documentedMetrics(t *testing.T) (map[string]metric, map[string]string) {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("..", "..", "docs", "daemon.md"))
	if err != nil {
		t.Fatal(err)
	}
	out, meanings := map[string]metric{}, map[string]string{}
	rows := regexp.MustCompile("(?m)^\\| `(backupd_\\w+)` \\| (\\w+) \\| (.*?) \\| (.+) \\|$")
	for _, row := range rows.FindAllStringSubmatch(string(raw), -1) {
		if _, twice := out[row[1]]; twice {
			t.Errorf("%s has two rows", row[1])
		}
		labels := []string{}
		for _, l := range regexp.MustCompile("`(\\w+)`").FindAllStringSubmatch(row[3], -1) {
			labels = append(labels, l[1])
		}
		slices.Sort(labels)
		out[row[1]], meanings[row[1]] = metric{row[2], strings.Join(labels, " ")}, row[4]
	}
	return out, meanings
}

var (
	typeLine   = regexp.MustCompile(`^# TYPE (backupd_\w+) (\w+)$`) // others are of the runtime and the process
	seriesLine = regexp.MustCompile(`^(backupd_\w+)(?:\{(.*)\})? \S+$`)
	labelPair  = regexp.MustCompile(`(\w+)="((?:[^"\\]|\\.)*)"`)
)

// exposedMetrics returns the metrics of the daemon. Closed labels must have values
// that the table describes.
func exposedMetrics(t *testing.T, d *daemon.Daemon, meanings map[string]string) map[string]metric {
	t.Helper()
	types, out := map[string]string{}, map[string]metric{}
	for line := range strings.Lines(scrape(t, d)) {
		line = strings.TrimSuffix(line, "\n")
		if m := typeLine.FindStringSubmatch(line); m != nil {
			types[m[1]] = m[2]
		}
		m := seriesLine.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		var labels []string
		for _, l := range labelPair.FindAllStringSubmatch(m[2], -1) { // sorted by name
			labels = append(labels, l[1])
			if slices.Contains(closed, l[1]) && !strings.Contains(meanings[m[1]], "`"+l[2]+"`") {
				t.Errorf("%s: docs/daemon.md does not tell of %s=%q", m[1], l[1], l[2])
			}
		}
		got := metric{types[m[1]], strings.Join(labels, " ")}
		if before, ok := out[m[1]]; ok && before != got {
			t.Errorf("%s has the labels %q and %q", m[1], before.Labels, got.Labels)
		}
		out[m[1]] = got
	}
	return out
}
