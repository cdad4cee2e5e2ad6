package check

import (
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// checkTogether finds what no part of the configuration tells alone: it needs
// what the clusters and the repositories told.
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

// checkIdentity finds a cluster that is another than before, or than it seems.
func (c *checker) checkIdentity(l *list, i int) {
	this := c.lives[i]
	if this == nil {
		return
	}
	for k := range i {
		if other := c.lives[k]; other != nil && other.id == this.id && c.clusters[k].Repository == c.clusters[i].Repository && sharedEndpoint(&c.clusters[k], &c.clusters[i]) == "" {
			l.warn("remove one of the two; if the same cluster is to be kept twice, give them different repositories",
				"cluster %s is the same etcd cluster (%s) and has the same repository: every snapshot is stored twice under two names", c.clusters[k].Name, this.id)
		}
	}
	if newest := c.stored[i].newest(); newest != nil && newest.ClusterID != this.id {
		l.warn("right if the cluster was restored or made anew; if not, the endpoints are those of another cluster",
			"the newest snapshot %s is of etcd cluster %s, and the endpoints are of %s", newest.ID, newest.ClusterID, this.id)
	}
}

// checkDurations compares how long backups took with the schedule and the
// time-out.
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
		l.warn("make the schedule less dense", "one of the last backups took %s, and the schedule wants one every %s: runs fall out", span(longest), span(shortest))
	}
	if timeout := c.clusters[i].Snapshot.Timeout; timeout > 0 && longest > timeout/2 {
		l.warn("raise snapshot.timeout", "one of the last backups took %s, and snapshot.timeout ends one after %s", span(longest), span(timeout))
	}
}

// checkBytes compares the limit of the retention with what always stays.
func (c *checker) checkBytes(l *list, i int) {
	r, newest := &c.clusters[i].Retention, c.stored[i].newest()
	if r.MaxBytes == 0 || newest == nil {
		return
	}
	if least := int64(max(1, r.MinVerified)) * newest.Stored.Bytes; least > r.MaxBytes {
		l.warn("raise retention.max-bytes, or lower retention.min-verified", "retention.max-bytes of %s can never be kept: the %d newest verified snapshots, which always stay, take %s", size(r.MaxBytes), r.MinVerified, size(least))
	}
}
