// Package history decides whether two snapshots can be of one unforked history of a
// cluster, a timeline, and to which timeline a new one belongs. It is pure: it compares
// what others have read, and changes nothing.
package history

import "github.com/etcd-backupd/backupd/internal/backup"

// Timeline returns the timeline of m, given the snapshots that are stored
// before and after it; either may be nil. A timeline goes on unless the cluster
// was replaced or went back in time. A snapshot that is stored late has one
// after it too. It must fit between the two, or it begins a timeline of its own.
func Timeline(m, before, after *backup.Manifest) string {
	same := before != nil && after != nil && before.Timeline == after.Timeline
	fits := after != nil && follows(after, m)
	switch {
	case before != nil && follows(m, before) && (fits || !same):
		return before.Timeline
	case fits && !same:
		return after.Timeline
	}
	newest := 0
	for _, m := range []*backup.Manifest{before, after} {
		if m != nil {
			newest = max(newest, backup.TimelineNumber(m.Timeline))
		}
	}
	return backup.NewTimeline(newest)
}

// follows reports whether m may be of one history with the snapshot before it.
// The high-water revision decides, not the snapshot's own: the snapshot of a
// lagging member may be older than the one before.
func follows(m, before *backup.Manifest) bool {
	now, then := m.Position(), before.Position()
	return now.ClusterID == then.ClusterID && then.Revision <= now.Revision
}

// Unchanged reports whether a cluster at the given position has applied nothing
// since the source of the snapshot reported its index, before the stream began.
// Index and term of another history may be the same by chance, so the caller must
// compare the content too.
func Unchanged(m *backup.Manifest, now backup.Position) bool {
	return m.SourceIndex > 0 &&
		now == backup.Position{ClusterID: m.ClusterID, Revision: m.Revision, Index: m.SourceIndex, Term: m.SourceTerm}
}
