package repository

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// Delete removes a snapshot. The manifest goes first, so that the snapshot stops
// existing before it stops being whole. The marks go last, so that a pin still
// holds the data that an interrupted deletion leaves. To delete again removes the
// rest; the error is a [*NotFoundError] only if neither manifest nor data was
// there. Delete ignores pins: the caller must have looked with [Marks.Find].
func (c *Cluster) Delete(ctx context.Context, id backup.SnapshotID) error {
	data, err := c.objects.Data(ctx, id.DataName())
	if err != nil {
		return err
	}
	manifests, err := c.objects.Manifests(ctx, id.DataName())
	if err != nil {
		return err
	}
	if len(manifests) == 0 && len(data) == 0 {
		return errors.Join(noSuch(id), c.Marks().deleteAll(ctx, id))
	}
	for _, m := range manifests {
		if m.ID != id {
			continue
		}
		if err := c.repo.store.Delete(ctx, m.String()); err != nil {
			return fmt.Errorf("delete manifest: %w", err)
		}
	}
	if slices.ContainsFunc(manifests, func(m backup.Key) bool { return m.ID != id }) {
		return nil // somebody copied the manifest under another name: the copy refers to the same data
	}
	for _, o := range data {
		if err := c.repo.store.Delete(ctx, o.Key); err != nil {
			return fmt.Errorf("delete data: %w", err)
		}
	}
	return c.Marks().deleteAll(ctx, id)
}
