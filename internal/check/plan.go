package check

import (
	"fmt"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/check/certificate"
	"github.com/etcd-backupd/backupd/internal/cluster/endpoint"
	"github.com/etcd-backupd/backupd/internal/config"
	"github.com/etcd-backupd/backupd/internal/schedule"
)

// checkPlan checks the configuration of one cluster by itself: whether its
// schedules and its retention fit each other. all are the clusters of the
// configuration.
func checkPlan(conf *config.Cluster, all []config.Cluster, now time.Time) []backup.Finding {
	l := list{section: SectionConfiguration, subject: "cluster " + conf.Name}
	line, err := conf.Snapshot.Line()
	if err != nil {
		l.fail("correct snapshot.schedule", "%v", err)
		return l.findings
	}
	checkRetention(&l, conf, line, now)
	for _, s := range []struct{ key, line string }{
		{"snapshot.schedule", conf.Snapshot.Schedule},
		{"verify.schedule", conf.Verify.Schedule},
		{"defragment.schedule", conf.Defragment.Schedule},
	} {
		checkClockChange(&l, s.key, s.line, now)
	}
	checkTwins(&l, conf, all)
	if len(l.findings) == 0 {
		l.ok("schedule and retention fit each other: a snapshot at least every %s", certificate.Span(line.Longest(now)))
	}
	return l.findings
}

// checkRetention finds rules that cannot do what they seem to say, because
// snapshots are made too seldom.
func checkRetention(l *list, c *config.Cluster, line schedule.Line, now time.Time) {
	r := &c.Retention
	if !c.Policy().HasRule() {
		l.warn("add a rule to retention, such as keep-daily: 14",
			"retention has no keep rule: nothing is ever removed, and the repository grows for ever")
		return
	}
	shortest := line.Shortest(now)
	for _, rule := range []struct {
		key    string
		count  int
		period time.Duration
		name   string
	}{
		{"keep-hourly", r.KeepHourly, time.Hour, "hour"},
		{"keep-daily", r.KeepDaily, 24 * time.Hour, "day"},
		{"keep-weekly", r.KeepWeekly, 7 * 24 * time.Hour, "week"},
		{"keep-monthly", r.KeepMonthly, 31 * 24 * time.Hour, "month"},
		{"keep-yearly", r.KeepYearly, 366 * 24 * time.Hour, "year"},
	} {
		if rule.count > 0 && shortest > rule.period {
			l.warn(fmt.Sprintf("use keep-last: %d if that is meant, or a denser snapshot.schedule", rule.count),
				"retention: %s: %d can never keep one of every %s: "+
					"the schedule makes one every %s, so it means the last %d",
				rule.key, rule.count, rule.name, certificate.Span(shortest), rule.count)
		}
	}
	if r.KeepWithin > 0 && r.KeepWithin < shortest {
		l.warn("make it longer than the interval of the schedule, or remove it",
			"retention: keep-within: %s is shorter than the time between two snapshots (%s): it keeps only the newest",
			certificate.Span(r.KeepWithin), certificate.Span(shortest))
	}
}

// checkClockChange warns of a time of day that does not exist, or that comes
// twice, on a day on which clocks change.
func checkClockChange(l *list, key, text string, now time.Time) {
	if text == "" {
		return
	}
	line, err := schedule.Parse(text, time.UTC)
	if err != nil {
		l.fail("correct "+key, "%v", err)
		return
	}
	change, ok := line.ClockChange(now)
	if !ok {
		return
	}
	at, day := change.Wall.Format("15:04"), change.At.Format("2006-01-02")
	hint := fmt.Sprintf("if that matters choose another time, or UTC; the clock of %s next changes on %s",
		line.Location(), change.At.Format("2006-01-02 15:04 MST"))
	if change.Forward {
		l.warn(hint, "%s: %s: %s does not exist on %s, when clocks are put forward: on that day the run comes at %s",
			key, text, at, day, change.At.Format("15:04"))
		return
	}
	l.warn(hint, "%s: %s: %s comes twice on %s, when clocks are put back: the run comes only the first time",
		key, text, at, day)
}

// checkTwins finds another cluster of the configuration that has an endpoint of
// this one, and the same repository.
func checkTwins(l *list, this *config.Cluster, all []config.Cluster) {
	for k := range all {
		other := &all[k]
		if other.Name == this.Name {
			break // each pair is reported once, for the later one
		}
		if other.Repository != this.Repository {
			continue
		}
		if ep := sharedEndpoint(this, other); ep != "" {
			l.twin("cluster %s has the same endpoint %s", other.Name, ep)
		}
	}
}

// twin warns that another cluster is the same one. how says why that is known.
func (l *list) twin(how string, args ...any) {
	l.warn("remove one of the two; if the same cluster must be kept twice, give them different repositories",
		how+" and the same repository: every snapshot is stored twice under two names", args...)
}

// sharedEndpoint returns an endpoint that both clusters have. Loopback is the
// daemon's own host for both.
func sharedEndpoint(a, b *config.Cluster) string {
	if a.DiscoverySRV != "" && a.DiscoverySRV == b.DiscoverySRV && a.DiscoverySRVName == b.DiscoverySRVName {
		return "of " + a.DiscoverySRV
	}
	for _, x := range a.Endpoints {
		for _, y := range b.Endpoints {
			if endpoint.Same(x, y) {
				return x
			}
		}
	}
	return ""
}
