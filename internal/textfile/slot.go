package textfile

import (
	"slices"
	"strings"
	"time"

	dto "github.com/prometheus/client_model/go"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// Slot is what one slot tells.
type Slot struct {
	// Families are all metrics of the process, those of the runtime and of other
	// clusters included: they are left out of the file.
	Families []*dto.MetricFamily
	Clusters []Cluster
}

// Cluster is a cluster of the slot.
type Cluster struct {
	Repository, Cluster string
	Address             string            // leads to the repository
	Newest              backup.SnapshotID // the newest verified one; empty: it is not known
}

// Names of metrics that have a meaning here. The daemon makes them.
const (
	nameSince   = "backupd_protected_since_timestamp_seconds"
	nameRead    = "backupd_repository_read"
	nameReadAt  = "backupd_repository_last_read_timestamp_seconds"
	nameSuccess = "backupd_last_success_timestamp_seconds"
	nameAttempt = "backupd_last_attempt_timestamp_seconds"
	namePruned  = "backupd_last_prune_timestamp_seconds"
	namePhase   = "backupd_last_run_phase_duration_seconds"
)

// Momentary are the metrics of a daemon that a file must not tell: they are true of the moment
// of a scrape, and a file that nobody writes any more would tell them for ever. An age
// would not grow, so an old backup would look fresh; that nothing hangs, and that no
// snapshot was lost since the start, means nothing when a process has ended.
var Momentary = []string{"backupd_snapshot_age_seconds", "backupd_member_hangs", "backupd_snapshots_lost"}

// past are moments that cannot be later than now. A file that says so was written by a
// wrong clock, and would hide for as long that backups are missing.
var past = []string{nameSince, nameReadAt, nameSuccess, nameAttempt, namePruned}

// over returns the content of the next file: what the slot tells, and what the file before
// knew and the slot does not.
func (s Slot) over(before *content, now time.Time) *content {
	out := &content{families: map[string]*dto.MetricFamily{}}
	for _, f := range s.Families {
		if strings.HasPrefix(f.GetName(), prefix) && !slices.Contains(Momentary, f.GetName()) {
			out.add(f, s.tellsOf)
		}
	}
	for _, f := range before.families {
		if f.GetType() == dto.MetricType_COUNTER {
			out.count(f, s.tellsOf)
		}
	}
	for _, c := range s.Clusters {
		n := note{c.Repository, c.Cluster, sum([]byte(c.Address)), c.Newest}
		// The snapshots at another address say nothing of those at this one.
		if old := before.note(n); old != nil && old.Address == n.Address && !before.future(n, now) {
			out.keep(before, &n, *old)
		}
		out.notes = append(out.notes, n)
	}
	return out
}

// tellsOf reports whether a metric is about the process, or about a cluster or a repository
// of the slot.
func (s Slot) tellsOf(m *dto.Metric) bool {
	repository, some := value(m, "repository")
	cluster, one := value(m, "cluster")
	return !some || slices.ContainsFunc(s.Clusters, func(c Cluster) bool {
		return c.Repository == repository && (!one || c.Cluster == cluster)
	})
}

// add adds the metrics of a family that are wanted.
func (c *content) add(f *dto.MetricFamily, wanted func(*dto.Metric) bool) {
	for _, m := range f.GetMetric() {
		if !wanted(m) {
			continue
		}
		in := c.families[f.GetName()]
		if in == nil {
			in = &dto.MetricFamily{Name: f.Name, Help: f.Help, Type: f.Type}
			c.families[f.GetName()] = in
		}
		in.Metric = append(in.Metric, m)
	}
}

// count adds the counters of a file before to those of the slot, which began at 0.
func (c *content) count(f *dto.MetricFamily, wanted func(*dto.Metric) bool) {
	in := c.families[f.GetName()]
	c.add(f, func(m *dto.Metric) bool {
		if !wanted(m) {
			return false
		}
		if in == nil {
			return true
		}
		i := slices.IndexFunc(in.Metric, func(n *dto.Metric) bool { return identity(n) == identity(m) })
		if i >= 0 {
			total := in.Metric[i].GetCounter().GetValue() + m.GetCounter().GetValue()
			in.Metric[i] = &dto.Metric{Label: in.Metric[i].Label, Counter: &dto.Counter{Value: &total}}
		}
		return i < 0
	})
}

// of returns the metrics of a family that are about a cluster.
func (c *content) of(name string, n note) []*dto.Metric {
	f := c.families[name]
	if f == nil {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(f.Metric), func(m *dto.Metric) bool { return !about(m, n) })
}

func about(m *dto.Metric, n note) bool {
	repository, _ := value(m, "repository")
	cluster, one := value(m, "cluster")
	return one && repository == n.Repository && cluster == n.Cluster
}

// gauge returns the only metric of a family about a cluster, or nil.
func (c *content) gauge(name string, n note) *dto.Metric {
	all := c.of(name, n)
	if len(all) != 1 {
		return nil
	}
	return all[0]
}

// number returns the value of a gauge, 0 if there is none.
func (c *content) number(name string, n note) float64 { return c.gauge(name, n).GetGauge().GetValue() }

// future reports whether a moment that must be past is not.
func (c *content) future(n note, now time.Time) bool {
	limit := float64(now.Add(backup.Skew).UnixMilli()) / 1000
	return slices.ContainsFunc(past, func(name string) bool { return c.number(name, n) > limit })
}

// keep keeps what the file before knew of a cluster, at the same address.
func (c *content) keep(before *content, n *note, old note) {
	// The container of a CronJob may have no record of its own from one slot to the next.
	if since := before.number(nameSince, *n); since > 0 && since < c.number(nameSince, *n) {
		c.set(nameSince, *n, since)
	}
	var names []string
	switch {
	case c.number(nameRead, *n) == 1: // the repository has told what it knows, and it knows best
		names = []string{namePruned, namePhase, nameAttempt} // it does not know these
		// A slot in which nothing had changed is a success that it does not know either. It
		// counts for as long as the same snapshot is the newest.
		at := before.number(nameSuccess, *n)
		if n.Newest == old.Newest && n.Newest != "" && c.gauge(nameSuccess, *n) != nil &&
			at > c.number(nameSuccess, *n) {
			c.set(nameSuccess, *n, at)
		}
	case before.number(nameReadAt, *n) >= c.number(nameReadAt, *n):
		// Otherwise the record of an earlier process has seen more than the file.
		for name, f := range before.families {
			if f.GetType() == dto.MetricType_GAUGE {
				names = append(names, name)
			}
		}
		if n.Newest == "" {
			n.Newest = old.Newest
		}
	}
	for _, name := range names {
		if len(c.of(name, *n)) == 0 {
			c.add(before.families[name], func(m *dto.Metric) bool { return about(m, *n) })
		}
	}
}

// set changes a gauge of a cluster that is there.
func (c *content) set(name string, n note, to float64) {
	f := c.families[name]
	for i, m := range f.Metric {
		if about(m, n) {
			f.Metric[i] = &dto.Metric{Label: m.Label, Gauge: &dto.Gauge{Value: &to}}
		}
	}
}
