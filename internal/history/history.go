// Package history decides whether one snapshot continues another: whether both
// are of one unforked history of a cluster, a timeline. It is pure: it reads
// manifests that others have read, and changes nothing.
package history

import "github.com/etcd-backupd/backupd/internal/backup"

// Timeline returns the timeline of m, given the snapshots that are stored
// before and after it; either may be nil. A timeline goes on unless the cluster
// was replaced or went back in time. A snapshot that is stored late has one
// after it too. It must fit between the two, or it begins a timeline of its own.
func Timeline(m, before, after *backup.Manifest) string {
	same := before != nil && after != nil && before.Timeline == after.Timeline
	fits := after != nil && Continues(after, m)
	switch {
	case before != nil && Continues(m, before) && (fits || !same):
		return before.Timeline
	case fits && !same:
		return after.Timeline
	}
	return backup.RandomName(10)
}

// Continues reports whether m may be of one history with the snapshot before it.
// The high-water revision decides, not the snapshot's own: the snapshot of a
// lagging member may be older than the one before.
func Continues(m, before *backup.Manifest) bool {
	return m.ClusterID == before.ClusterID && before.HighWaterRevision <= m.HighWaterRevision
}
