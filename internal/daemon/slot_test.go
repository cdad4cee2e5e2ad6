package daemon_test

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/etcd-backupd/backupd/internal/daemon"
	"github.com/etcd-backupd/backupd/internal/testserver"
	"github.com/etcd-backupd/backupd/internal/textfile"
)

// slot runs one slot in a process that forgets everything, and returns the lines of its file.
func (h *house) slot() []string {
	h.t.Helper()
	path := filepath.Join(h.dir, "backupd.prom")
	f, err := textfile.Open(path)
	h.must(err)
	g, err := daemon.NewGuards(h.t.Context(), h.options())
	h.must(err)
	done, err := g.Once(h.t.Context(), nil)
	h.must(err)
	s, err := g.Slot(done)
	h.must(err)
	h.must(f.Write(s, time.Now()))
	records, err := filepath.Glob(h.dir + "/spool/*.record.json")
	h.must(err)
	for _, r := range records {
		h.must(os.Remove(r)) // the folder of a CronJob may be new each time
	}
	raw, err := os.ReadFile(path)
	h.must(err)
	return strings.Split(string(raw), "\n")
}

// gauge returns the line of a metric of the cluster.
func gauge(t *testing.T, lines []string, name string) string {
	t.Helper()
	i := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, name+"{") })
	if i < 0 {
		t.Fatalf("no %s in:\n%s", name, strings.Join(lines, "\n"))
	}
	return lines[i]
}

const (
	ofProd  = `{cluster="prod",repository="main"`
	success = "backupd_last_success_timestamp_seconds"
)

// TestSlot: a failed slot tells that it failed, and keeps when the last one succeeded.
func TestSlot(t *testing.T) {
	h := newHouse(t)
	h.configure("@hourly", "")
	first := h.slot()
	for _, want := range []string{
		"backupd_repository_read" + ofProd + "} 1", "backupd_schedule_interval_seconds" + ofProd + "} 3600",
		"backupd_backups_total" + ofProd + `,result="verified"} 1`,
	} {
		if !slices.Contains(first, want) {
			t.Errorf("no %s in:\n%s", want, strings.Join(first, "\n"))
		}
	}
	at, since := gauge(t, first, success), gauge(t, first, "backupd_protected_since_timestamp_seconds")

	h.endpoints = []string{testserver.FreeURL(t)}
	h.configure("@hourly", "")
	h.put("changed")
	down := h.slot()
	h.unreadable()
	away := h.slot()
	for name, lines := range map[string][]string{"etcd down": down, "store away": away} {
		for _, want := range []string{at, since, "backupd_backups_total" + ofProd + `,result="verified"} 1`} {
			if !slices.Contains(lines, want) {
				t.Errorf("%s: no %s in:\n%s", name, want, strings.Join(lines, "\n"))
			}
		}
	}
	wants := map[string][]string{
		"backupd_backups_total" + ofProd + `,result="failed"} 1`: down, "backupd_repository_read" + ofProd + "} 1": down,
		"backupd_backups_total" + ofProd + `,result="failed"} 2`: away, "backupd_repository_read" + ofProd + "} 0": away,
	}
	for want, lines := range wants {
		if !slices.Contains(lines, want) {
			t.Errorf("no %s in:\n%s", want, strings.Join(lines, "\n"))
		}
	}
}

// TestSlot_AsDaemon: the file has the names, labels and help of the daemon, and only those.
func TestSlot_AsDaemon(t *testing.T) {
	h := newHouse(t)
	h.configure("@hourly", "")
	lines := h.slot()
	d := h.daemon()
	h.run(d)
	h.backup(d, "succeeded")
	exposed := strings.Split(scrape(t, d), "\n")
	value := regexp.MustCompile(` \S+$`)
	shown := map[string]bool{}
	for _, l := range exposed {
		shown[l], shown[value.ReplaceAllString(l, "")] = true, true
	}
	n := 0
	for _, l := range lines {
		comment := strings.HasPrefix(l, "# ")
		switch {
		case l == "" || comment && !strings.HasPrefix(l, "# HELP ") && !strings.HasPrefix(l, "# TYPE "):
		case comment && !shown[l], !comment && !shown[value.ReplaceAllString(l, "")]:
			t.Errorf("the daemon does not say %q", l)
		default:
			n++
		}
	}
	if n < 60 {
		t.Errorf("only %d lines", n)
	}
	for _, name := range textfile.Momentary {
		if !slices.ContainsFunc(exposed, func(l string) bool { return strings.HasPrefix(l, name+"{") }) {
			t.Errorf("the daemon has no %s", name)
		}
	}
}
