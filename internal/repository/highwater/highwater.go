// Package highwater finds how far a cluster was ever seen to have come, and decides by
// how much the revision of a restored cluster must be bumped: clients of the old cluster
// may know revisions that are lost, and a server lets them wait for these for ever.
package highwater

import (
	"context"
	"errors"
	"fmt"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/repository"
)

// Margin is how many revisions are left free above the high-water mark, for what was
// written after the last look. At a thousand writes a second it takes eleven days.
const Margin = 1_000_000_000

// Find returns the newest revision that was ever seen of the cluster: by the snapshots of
// all its histories, ended ones too, and by what their manifests say of the members at that
// time. Snapshots that are gone count no more than the ones after them say.
func Find(ctx context.Context, c *repository.Cluster) (backup.Revision, error) {
	items, err := repository.Names(ctx, c, "")
	if err != nil {
		return 0, fmt.Errorf("find the newest revision of cluster %s: %w", c.Name(), err)
	}
	all, err := repository.ReadTimelines(ctx, c)
	if err != nil {
		return 0, fmt.Errorf("find the newest revision of cluster %s: %w", c.Name(), err)
	}
	var mark backup.Revision
	for _, i := range items {
		mark = max(mark, i.ID.Revision())
	}
	for _, t := range all {
		if t.Manifest != nil {
			mark = max(mark, t.Manifest.HighWaterRevision)
		}
	}
	return mark, nil
}

// Own returns the high-water mark that the manifest of a snapshot alone tells. It is the
// same on every host and at any time.
func Own(m *backup.Manifest) backup.Revision { return max(m.Revision, m.HighWaterRevision) }

// Bump returns by how much the revision of a restored snapshot is raised: to [Margin]
// above the mark.
func Bump(m *backup.Manifest, mark backup.Revision) uint64 {
	return uint64(max(Own(m), mark)-m.Revision) + Margin
}

// Reason says why the revision is bumped. It always is: a snapshot may be older than what
// was written after it, and no repository can know that nothing was.
func Reason(m *backup.Manifest, mark backup.Revision) string {
	if mark = max(Own(m), mark); mark > m.Revision {
		return fmt.Sprintf("the cluster was seen at revision %d and the snapshot ends at %d: "+
			"clients may know revisions that are lost (--bump-revision=0 turns this off)", mark, m.Revision)
	}
	return "nobody knows what was written after the snapshot: " +
		"clients may know revisions that are lost (--bump-revision=0 turns this off)"
}

// Unreadable reports whether err of [Find] only means that the store lists in no order.
func Unreadable(err error) bool { return errors.Is(err, backup.ErrUnordered) }
