package check

import (
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// checkTogether compares the configuration with the answers of the clusters and
// the contents of the repositories.
func (c *checker) checkTogether() []backup.Finding {
	var out []backup.Finding
	for i := range c.clusters {
		l := list{section: SectionConfiguration, subject: "cluster " + c.clusters[i].Name}
		c.checkIdentity(&l, i)
		c.checkDurations(&l, i)
		c.checkBytes(&l, i)
		out = append(out, l.findings...)
	}
	return out
}

// checkIdentity finds a cluster that is the same as another, or not the same as
// the one whose snapshots are stored.
func (c *checker) checkIdentity(l *list, i int) {
	this := c.lives[i]
	if this == nil {
		return
	}
	for k := range i {
		other, conf := c.lives[k], &c.clusters[k]
		if other == nil || other.id != this.id || conf.Repository != c.clusters[i].Repository {
			continue
		}
		if sharedEndpoint(conf, &c.clusters[i]) == "" { // else checkTwins reported it
			l.twin("cluster %s has the same etcd cluster id (%s)", conf.Name, this.id)
		}
	}
	if newest := c.stored[i].newest(); newest != nil && newest.ClusterID != this.id {
		l.warn("this is right after a restore, or if the cluster was made again; otherwise the endpoints are wrong",
			"the newest snapshot %s is of etcd cluster %s, and the endpoints belong to %s",
			newest.ID, newest.ClusterID, this.id)
	}
}

// checkDurations compares the durations of recent backups with the schedule and
// the time-out.
func (c *checker) checkDurations(l *list, i int) {
	var longest time.Duration
	for _, m := range c.stored[i].recent {
		longest = max(longest, m.FinishedAt.Sub(m.StartedAt))
	}
	line, err := c.clusters[i].Snapshot.Line()
	if err != nil || longest <= 0 {
		return
	}
	if shortest := line.Shortest(c.now); longest > shortest {
		l.warn("make the schedule less dense",
			"a recent backup took %s, longer than the schedule's interval of %s: some runs will be skipped",
			span(longest), span(shortest))
	}
	if timeout := c.clusters[i].Snapshot.Timeout; timeout > 0 && longest > timeout/2 {
		l.warn("raise snapshot.timeout",
			"a recent backup took %s, and snapshot.timeout ends a backup after %s", span(longest), span(timeout))
	}
}

// checkBytes compares the size limit of the retention with the snapshots that it
// always keeps.
func (c *checker) checkBytes(l *list, i int) {
	r, newest := &c.clusters[i].Retention, c.stored[i].newest()
	if r.MaxBytes == 0 || newest == nil {
		return
	}
	if least := int64(max(1, r.MinVerified)) * newest.Stored.Bytes; least > r.MaxBytes {
		l.warn("raise retention.max-bytes, or lower retention.min-verified",
			"retention.max-bytes of %s can never be kept: the %d newest verified snapshots, which always stay, take %s",
			size(r.MaxBytes), r.MinVerified, size(least))
	}
}
