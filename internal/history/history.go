// Package history decides whether two snapshots can be of one unforked history of a
// cluster, a timeline, and to which timeline a new one belongs. It is pure: it compares
// what others have read, and changes nothing.
package history

import "github.com/etcd-backupd/backupd/internal/backup"

// Unchanged reports whether a cluster at the given position has applied nothing
// since the source of the snapshot reported its index, before the stream began.
// Index and term of another history may be the same by chance, so the caller must
// compare the content too.
func Unchanged(m *backup.Manifest, now backup.Position) bool {
	return m.SourceIndex > 0 &&
		now == backup.Position{ClusterID: m.ClusterID, Revision: m.Revision, Index: m.SourceIndex, Term: m.SourceTerm}
}
