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
// hold Delete up: the caller must have looked, see [Cluster.FindMark]. Marks go
// last: a pin still holds what an interrupted deletion leaves.
func (c *Cluster) Delete(ctx context.Context, id backup.SnapshotID) error {
	data, err := c.dataOf(ctx, id.DataName())
	if err != nil {
		return err
	}
	manifests, err := c.manifestsOf(ctx, id.DataName())
	if err != nil {
		return err
	}
	if len(manifests) == 0 && len(data) == 0 {
		return errors.Join(noSuch(id), c.deleteMarks(ctx, id))
	}
	for _, m := range manifests {
		if m.ID != id {
			continue
		}
		if err := c.store().Delete(ctx, m.String()); err != nil {
			return fmt.Errorf("delete manifest: %w", err)
		}
	}
	if slices.ContainsFunc(manifests, func(m backup.Key) bool { return m.ID != id }) {
		return nil // somebody copied a manifest under another name: the data is its too
	}
	for _, o := range data {
		if err := c.store().Delete(ctx, o.Key); err != nil {
			return fmt.Errorf("delete data: %w", err)
		}
	}
	return c.deleteMarks(ctx, id)
}

func (c *Cluster) deleteMarks(ctx context.Context, id backup.SnapshotID) error {
	marks, err := c.collect(ctx, backup.MarkPrefix(c.name)+string(id)+".")
	for _, obj := range marks {
		if err == nil {
			err = c.store().Delete(ctx, obj.Key)
		}
	}
	if err != nil {
		return fmt.Errorf("delete marks: %w", err)
	}
	return nil
}
