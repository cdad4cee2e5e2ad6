package repository

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// Delete removes a snapshot: it stops existing before it stops being whole, so
// the manifest goes first. Deleting again what was deleted in part removes the
// rest; err is a [*NotFoundError] only when neither was there. A pin does not
// hold Delete up: the caller must have looked, see [Marks.Find]. Marks go
// last: a pin still holds what an interrupted deletion leaves.
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
		if err := c.objects.Store.Delete(ctx, m.String()); err != nil {
			return fmt.Errorf("delete manifest: %w", err)
		}
	}
	if slices.ContainsFunc(manifests, func(m backup.Key) bool { return m.ID != id }) {
		return nil // somebody copied a manifest under another name: the data is its too
	}
	for _, o := range data {
		if err := c.objects.Store.Delete(ctx, o.Key); err != nil {
			return fmt.Errorf("delete data: %w", err)
		}
	}
	return c.Marks().deleteAll(ctx, id)
}
