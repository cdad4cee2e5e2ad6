package prune

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/repository/catalog"
	"github.com/etcd-backupd/backupd/internal/storage"
)

// PinnedError is returned if a snapshot is pinned, and so was not removed.
type PinnedError struct{ backup.Mark }

func (e *PinnedError) Error() string { return fmt.Sprintf("snapshot %s is pinned: %s", e.ID, e.Reason) }

// Delete removes a snapshot, also if it is pinned. It first marks the snapshot as removed,
// by by, so that nobody takes it for lost. The manifest goes first of what it was made of,
// so that the snapshot stops existing before it stops being whole. The marks go last, so
// that a pin still holds the data that an interrupted deletion leaves. To delete again
// removes the rest; the error is a [*repository.NotFoundError] only if neither manifest nor
// data was there.
func Delete(ctx context.Context, c *repository.Cluster, id backup.SnapshotID, by string) error {
	return remove(ctx, c, id, by, func(_ context.Context, key string, remove func() error) error { return remove() })
}

// DeleteUnpinned is [Delete] of a snapshot that is not pinned: else it returns a
// [*PinnedError]. It looks for a pin right before the manifest goes, and after that: a pin
// that was reported as made holds.
func DeleteUnpinned(ctx context.Context, c *repository.Cluster, id backup.SnapshotID, by string) error {
	unpinned := func() error {
		pin, err := c.Marks().Find(ctx, id, backup.MarkPin)
		if err == nil && pin != nil {
			return &PinnedError{*pin}
		}
		return err
	}
	if err := unpinned(); err != nil {
		return err
	}
	store := c.Repository().Store()
	return remove(ctx, c, id, by, func(ctx context.Context, key string, remove func() error) error {
		objects := catalog.Catalog{Store: store, Cluster: c.Name()}
		manifest, err := objects.Read(ctx, key, backup.MaxManifestBytes)
		if err == nil && len(manifest) > backup.MaxManifestBytes { // it could not be put back
			err = fmt.Errorf("%s is larger than any manifest: look at it, and remove it by hand", key)
		}
		if err == nil {
			err = unpinned()
		}
		if err != nil {
			return err
		}
		if err := remove(); err != nil {
			return err
		}
		if err := unpinned(); err != nil {
			return errors.Join(err, putBack(ctx, store, key, manifest))
		}
		return nil
	})
}

// remove removes a snapshot. guard removes a manifest by the function that it gets, or
// says why not.
func remove(
	ctx context.Context, c *repository.Cluster, id backup.SnapshotID, by string,
	guard func(ctx context.Context, key string, remove func() error) error,
) error {
	store := c.Repository().Store()
	objects := catalog.Catalog{Store: store, Cluster: c.Name()}
	data, err := objects.Data(ctx, id.DataName())
	if err != nil {
		return err
	}
	manifests, err := objects.Manifests(ctx, id.DataName())
	if err != nil {
		return err
	}
	if len(manifests) == 0 && len(data) == 0 {
		return errors.Join(noSuch(id), deleteMarks(ctx, objects, store, id))
	}
	for _, m := range manifests {
		if m.ID != id {
			continue
		}
		if err := c.Marks().Note(ctx, removal(m, "it was removed by its id", by)); err != nil {
			return err
		}
		err := guard(ctx, m.String(), func() error { return storage.Remove(ctx, store, m.String()) })
		var pinned *PinnedError
		if errors.As(err, &pinned) { // it was not removed
			removed := backup.Key{Cluster: c.Name(), Kind: backup.KindMark, ID: id, Mark: backup.MarkRemoved}
			err = errors.Join(err, store.Delete(context.WithoutCancel(ctx), removed.String()))
		}
		if err != nil {
			return fmt.Errorf("delete manifest: %w", err)
		}
	}
	if slices.ContainsFunc(manifests, func(m backup.Key) bool { return m.ID != id }) {
		return nil // somebody copied the manifest under another name: the copy refers to the same data
	}
	for _, o := range data {
		if err := storage.Remove(ctx, store, o.Key); err != nil {
			return fmt.Errorf("delete data: %w", err)
		}
	}
	return deleteMarks(ctx, objects, store, id)
}

func noSuch(id backup.SnapshotID) error {
	return &repository.NotFoundError{Reason: "no such snapshot: " + string(id)}
}

// deleteMarks removes all marks of a snapshot, but for the one that says that it was
// removed.
func deleteMarks(ctx context.Context, in catalog.Catalog, store storage.Store, id backup.SnapshotID) error {
	marks, err := in.All(ctx, backup.MarkPrefix(in.Cluster)+string(id)+".")
	for _, obj := range marks {
		if err == nil && obj.Name.Mark != backup.MarkRemoved {
			err = store.Delete(ctx, obj.Key)
		}
	}
	if err != nil {
		return fmt.Errorf("delete marks: %w", err)
	}
	return nil
}

// removal is the mark that must be made before a manifest is deleted.
func removal(manifest backup.Key, reason, by string) backup.Mark {
	return backup.Mark{
		Kind: backup.MarkRemoved, ID: manifest.ID, Manifest: manifest.String(), Reason: reason, By: by,
	}
}

// askAtOnce is how many objects are looked for at once.
const askAtOnce = 16

// RemovalAge is how long a mark of a removal stays. By then every process has seen
// that the snapshot is gone.
const RemovalAge = 30 * 24 * time.Hour

// Lost returns the snapshots of an earlier overview that are gone although nothing
// says that backupd removed them. What a listing says may be wrong: see
// [ConfirmLost].
func Lost(before, now *repository.Overview) []repository.Item {
	if before == nil || now == nil {
		return nil
	}
	known := map[backup.SnapshotID]bool{}
	for _, i := range now.Items {
		known[i.ID] = true
	}
	for _, i := range now.Rest {
		known[i.ID] = known[i.ID] || i.Marked(backup.MarkRemoved)
	}
	return slices.DeleteFunc(slices.Clone(before.Items), func(i repository.Item) bool { return known[i.ID] })
}

// ConfirmLost returns those of the items that are still gone and still have no mark of
// a removal when the objects themselves are asked for: a listing may lag, and a removal
// may have begun after the marks were listed.
func ConfirmLost(ctx context.Context, c *repository.Cluster, items []repository.Item) ([]repository.Item, error) {
	objects := catalog.Catalog{Store: c.Repository().Store(), Cluster: c.Name()}
	lost := make([]bool, len(items))
	var g errgroup.Group
	g.SetLimit(askAtOnce)
	for n, i := range items {
		g.Go(func() error {
			there, err := objects.Has(ctx, i.Key())
			if err != nil || there {
				return err
			}
			removed, err := objects.Has(ctx, repository.MarkKey(&i, backup.MarkRemoved))
			lost[n] = err == nil && !removed
			return err
		})
	}
	err := g.Wait()
	var out []repository.Item
	for n, i := range items {
		if lost[n] {
			out = append(out, i)
		}
	}
	return out, err
}
