package daemon

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/etcd-backupd/backupd/internal/server"
	"github.com/etcd-backupd/backupd/internal/snapshot"
	"github.com/etcd-backupd/backupd/internal/storage"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// metric is a row of the table.
type metric struct{ Kind, Labels string }

// closed are the labels whose values the table lists.
var closed = []string{"result", "phase", "state", "operation", "code", "kind"}

// TestMetricsAreDocumented: the table of docs/daemon.md is what a daemon exposes
// that has everything to tell.
func TestMetricsAreDocumented(t *testing.T) {
	h := newHouse(t)
	h.real = testserver.StartCluster(t, testserver.Options{TLS: true}) // certificates
	h.configure("@hourly", "    tls: {ca-file: "+h.real.CAFile+", cert-file: "+h.real.CertFile+", key-file: "+h.real.KeyFile+"}")
	h.edit(h.dir+"/spool}", h.dir+"/spool, max-bytes: 1GiB}\n  notifications: [{on: [success], command: [/bin/true]}]")
	d := h.daemon()
	h.run(d)
	h.await("the first backup", func() bool { return d.Clusters()[0].State == server.ClusterOK })
	j, err := d.StartVerification("prod", snapshot.Latest)
	if err != nil {
		t.Fatal(err)
	}
	h.ended(d, j.ID)
	d.metrics.store("main", storage.Event{Op: storage.OpDelete, Err: fs.ErrPermission})

	want, meanings := documentedMetrics(t)
	var got map[string]metric
	h.await("a notification", func() bool {
		got = exposedMetrics(t, d, meanings)
		_, ok := got["backupd_notifications_total"]
		return ok
	})
	if diff := cmp.Diff(got, want); diff != "" {
		t.Errorf("docs/daemon.md is not what the daemon exposes (-exposed +documented):\n%s", diff)
	}
}

// edit replaces a part of the configuration.
func (h *house) edit(before, after string) {
	h.t.Helper()
	raw, err := os.ReadFile(h.path)
	if err != nil {
		h.t.Fatal(err)
	}
	if strings.Count(string(raw), before) != 1 {
		h.t.Fatalf("%q is not once in the configuration:\n%s", before, raw)
	}
	if err := os.WriteFile(h.path, []byte(strings.Replace(string(raw), before, after, 1)), 0o600); err != nil {
		h.t.Fatal(err)
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
	for _, row := range regexp.MustCompile("(?m)^\\| `(backupd_\\w+)` \\| (\\w+) \\| (.*?) \\| (.+) \\|$").FindAllStringSubmatch(string(raw), -1) {
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

// exposedMetrics returns what the daemon exposes, whose closed labels must have
// values that the meanings tell of.
func exposedMetrics(t *testing.T, d *Daemon, meanings map[string]string) map[string]metric {
	t.Helper()
	families, err := d.metrics.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]metric{}
	for _, f := range families {
		if !strings.HasPrefix(f.GetName(), "backupd_") {
			continue // of the runtime and the process
		}
		var labels []string
		for i, series := range f.GetMetric() {
			for _, l := range series.GetLabel() { // sorted by name
				if i == 0 {
					labels = append(labels, l.GetName())
				}
				if slices.Contains(closed, l.GetName()) && !strings.Contains(meanings[f.GetName()], "`"+l.GetValue()+"`") {
					t.Errorf("%s: docs/daemon.md does not tell of %s=%q", f.GetName(), l.GetName(), l.GetValue())
				}
			}
		}
		out[f.GetName()] = metric{strings.ToLower(f.GetType().String()), strings.Join(labels, " ")}
	}
	return out
}
