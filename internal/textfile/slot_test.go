package textfile_test

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/textfile"
)

const (
	read    = "backupd_repository_read"
	readAt  = "backupd_repository_last_read_timestamp_seconds"
	success = "backupd_last_success_timestamp_seconds"
	since   = "backupd_protected_since_timestamp_seconds"
	suspect = "backupd_snapshot_suspect"
	pruned  = "backupd_last_prune_timestamp_seconds"
	failed  = "backupd_store_errors_total"
)

var now = time.Unix(10_000, 0)

// known are gauges of main/prod by their names.
type known map[string]float64

// slot is one of main/prod in a repository at "here".
func slot(newest string, gauges known) textfile.Slot {
	s := textfile.Slot{Clusters: []textfile.Cluster{{Repository: "main", Cluster: "prod", Address: "here"}}}
	s.Clusters[0].Newest = backup.SnapshotID(newest)
	for name, v := range gauges {
		s.Families = append(s.Families, family(name, v, "repository", "main", "cluster", "prod"))
	}
	return s
}

func family(name string, v float64, labels ...string) *dto.MetricFamily {
	help := "Help of " + name + "."
	m := &dto.Metric{}
	for pair := range slices.Chunk(labels, 2) {
		m.Label = append(m.Label, &dto.LabelPair{Name: &pair[0], Value: &pair[1]})
	}
	f := &dto.MetricFamily{Name: &name, Help: &help, Metric: []*dto.Metric{m}}
	if strings.HasSuffix(name, "_total") {
		f.Type = dto.MetricType_COUNTER.Enum()
		m.Counter = &dto.Counter{Value: &v}
	} else {
		f.Type = dto.MetricType_GAUGE.Enum()
		m.Gauge = &dto.Gauge{Value: &v}
	}
	return f
}

// written returns what the file says after these slots, by name.
func written(t *testing.T, slots ...textfile.Slot) known {
	t.Helper()
	path := filepath.Join(t.TempDir(), "backupd.prom")
	for _, s := range slots {
		write(t, path, s)
	}
	return content(t, path)
}

func write(t *testing.T, path string, s textfile.Slot) {
	t.Helper()
	f, err := textfile.Open(path)
	if err == nil {
		err = f.Write(s, now)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// content parses a file as the node exporter does.
func content(t *testing.T, path string) known {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	parser := expfmt.NewTextParser(model.LegacyValidation)
	all, err := parser.TextToMetricFamilies(f)
	if err != nil {
		t.Fatal(err)
	}
	out := known{}
	for name, family := range all {
		for _, m := range family.Metric {
			out[name] += m.GetGauge().GetValue() + m.GetCounter().GetValue()
		}
	}
	return out
}

// TestSlot_Kept: what a run did not know stays, where it is sure to be of the same snapshots.
func TestSlot_Kept(t *testing.T) {
	before := slot("a", known{read: 1, readAt: 5000, success: 4000, since: 100, suspect: 1, pruned: 4500})
	there := func(address string) textfile.Slot {
		s := slot("", known{read: 0, since: 9000})
		s.Clusters[0].Address = address
		return s
	}
	for name, tt := range map[string]struct {
		then []textfile.Slot
		want known
	}{
		"store away": {[]textfile.Slot{before, there("here")},
			known{read: 0, readAt: 5000, success: 4000, since: 100, suspect: 1, pruned: 4500}},
		"and away again": {[]textfile.Slot{before, there("here"), there("here")},
			known{read: 0, readAt: 5000, success: 4000, since: 100, suspect: 1, pruned: 4500}},
		"another repository is away": {[]textfile.Slot{before, there("elsewhere")}, known{read: 0, since: 9000}},
		"a later process knew that all is lost": {
			[]textfile.Slot{before, slot("", known{read: 0, readAt: 6000, since: 100})},
			known{read: 0, readAt: 6000, since: 100}},
		"skipped before, then etcd is down": {
			[]textfile.Slot{before, slot("a", known{read: 1, readAt: 9000, success: 2000, since: 9000})},
			known{read: 1, readAt: 9000, success: 4000, since: 100, pruned: 4500}},
		"the newest snapshot is gone": {
			[]textfile.Slot{before, slot("0", known{read: 1, readAt: 9000, success: 2000, since: 9000})},
			known{read: 1, readAt: 9000, success: 2000, since: 100, pruned: 4500}},
		"all are gone": {[]textfile.Slot{before, slot("", known{read: 1, readAt: 9000, since: 9000})},
			known{read: 1, readAt: 9000, since: 100, pruned: 4500}},
		"a wrong clock": {
			[]textfile.Slot{slot("a", known{read: 1, readAt: 5000, success: 99_000, since: 100}), there("here")},
			known{read: 0, since: 9000}},
	} {
		t.Run(name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, written(t, tt.then...)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestSlot_Counters: counters go on from one process to the next, so that a rate can be seen.
func TestSlot_Counters(t *testing.T) {
	with := func(code string) textfile.Slot {
		s := slot("a", nil)
		s.Families = append(s.Families, family(failed, 2, "repository", "main", "code", code))
		return s
	}
	got := written(t, with("timeout"), with("other"), with("timeout"), slot("a", nil))
	if diff := cmp.Diff(known{failed: 6}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestSlot_LeftOut: what is not of the slot, or would lie when it is old, is not in the file.
func TestSlot_LeftOut(t *testing.T) {
	s := slot("a", known{success: 4000})
	for _, name := range textfile.Momentary {
		s.Families = append(s.Families, family(name, 7, "repository", "main", "cluster", "prod"))
	}
	s.Families = append(s.Families,
		family("go_threads", 7), family("process_open_fds", 7),
		family("backupd_pending_uploads", 1, "repository", "main", "cluster", "other"),
		family(failed, 1, "repository", "far"), family("backupd_spool_bytes", 5))
	want := known{success: 4000, "backupd_spool_bytes": 5}
	if diff := cmp.Diff(want, written(t, s)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	other := slot("", known{read: 0})
	other.Clusters[0].Cluster = "other"
	other.Families = []*dto.MetricFamily{family(read, 0, "repository", "main", "cluster", "other")}
	if got := written(t, s, other); !slices.Equal(slices.Collect(maps.Keys(got)), []string{read}) {
		t.Errorf("the next slot is of another cluster: %v", got)
	}
}
