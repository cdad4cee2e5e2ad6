package check

import (
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/check/certificate"
	"github.com/etcd-backupd/backupd/internal/disk"
)

// checkTogether compares the configuration with the answers of the clusters and
// the contents of the repositories.
func checkTogether(clusters []*chosen, now time.Time) []backup.Finding {
	var out []backup.Finding
	for i, c := range clusters {
		l := list{section: SectionConfiguration, subject: "cluster " + c.conf.Name}
		checkIdentity(&l, c, clusters[:i])
		checkDurations(&l, c, now)
		checkBytes(&l, c)
		out = append(out, l.findings...)
	}
	return out
}

// checkIdentity finds a cluster that is the same as another, or not the same as
// the one whose snapshots are stored.
func checkIdentity(l *list, c *chosen, before []*chosen) {
	this := c.live
	if this == nil {
		return
	}
	for _, other := range before {
		if other.live == nil || other.live.id != this.id || other.conf.Repository != c.conf.Repository {
			continue
		}
		if sharedEndpoint(other.conf, c.conf) == "" { // else checkTwins reported it
			l.twin("cluster %s has the same etcd cluster id (%s)", other.conf.Name, this.id)
		}
	}
	if newest := c.stored.newest(); newest != nil && newest.ClusterID != 0 && newest.ClusterID != this.id {
		l.warn("this is right after a restore, or if the cluster was made again; otherwise the endpoints are wrong",
			"the newest snapshot %s is of etcd cluster %s, and the endpoints belong to %s",
			newest.ID, newest.ClusterID, this.id)
	}
}

// checkDurations compares the durations of recent backups with the schedule and
// the time-out.
func checkDurations(l *list, c *chosen, now time.Time) {
	var longest time.Duration
	for _, m := range c.stored.recent {
		if m.Imported == nil { // else it was taken long before it was stored
			longest = max(longest, m.FinishedAt.Sub(m.StartedAt))
		}
	}
	line, err := c.conf.Snapshot.Line()
	if err != nil || longest <= 0 {
		return
	}
	if shortest := line.Shortest(now); longest > shortest {
		l.warn("make the schedule less dense",
			"a recent backup took %s, longer than the schedule's interval of %s: some runs will be skipped",
			certificate.Span(longest), certificate.Span(shortest))
	}
	if timeout := c.conf.Snapshot.Timeout; timeout > 0 && longest > timeout/2 {
		l.warn("raise snapshot.timeout",
			"a recent backup took %s, and snapshot.timeout ends a backup after %s",
			certificate.Span(longest), certificate.Span(timeout))
	}
}

// checkBytes compares the size limit of the retention with the snapshots that it
// always keeps.
func checkBytes(l *list, c *chosen) {
	r, newest := &c.conf.Retention, c.stored.newest()
	if r.MaxBytes == 0 || newest == nil {
		return
	}
	if least := int64(max(1, r.MinVerified)) * newest.Stored.Bytes; least > r.MaxBytes {
		l.warn("raise retention.max-bytes, or lower retention.min-verified",
			"retention.max-bytes of %s can never be kept: the %d newest verified snapshots, which always stay, take %s",
			disk.Size(r.MaxBytes), r.MinVerified, disk.Size(least))
	}
}
