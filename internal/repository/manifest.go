package repository

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"slices"

	"golang.org/x/sync/errgroup"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/repository/catalog"
	"github.com/etcd-backupd/backupd/internal/storage"
)

// manifestReaders is how many manifests are read at once.
const manifestReaders = 16

// Manifest reads the manifest of one snapshot. It returns a [*NotFoundError] when
// there is none.
func (c *Cluster) Manifest(ctx context.Context, i Item) (*backup.Manifest, error) {
	return readManifest(ctx, c.objects, i.Key())
}

// readManifest reads one that is not whole once more: it may have been damaged on its way.
func readManifest(ctx context.Context, in catalog.Catalog, key backup.Key) (*backup.Manifest, error) {
	m, err := readOnce(ctx, in, key)
	if errors.Is(err, backup.ErrCorrupt) {
		m, err = readOnce(ctx, in, key)
	}
	return m, err
}

func readOnce(ctx context.Context, in catalog.Catalog, key backup.Key) (*backup.Manifest, error) {
	raw, err := in.Read(ctx, key.String(), backup.MaxManifestBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, noSuch(key.ID)
	}
	if err != nil {
		return nil, fmt.Errorf("read manifest %s: %w", key, err)
	}
	m, err := backup.ParseManifest(raw)
	if err != nil {
		return nil, fmt.Errorf("read manifest %s: %w", key, err)
	}
	// A manifest under the name of another would restore a snapshot that nobody
	// asked for.
	if m.Cluster != key.Cluster || m.ID != key.ID {
		return nil, &backup.DefectError{Kind: backup.Swapped, Key: key.String(),
			Err: backup.Corruptf("this is the manifest %s", m.Key())}
	}
	// Listings, and decisions that rest on them, use the name. So it must agree
	// with the content.
	if m.ObjectKey() != key {
		return nil, &backup.DefectError{Kind: backup.ManifestDamaged, Key: key.String(),
			Err: backup.Corruptf("by its content its name is %s", m.Key())}
	}
	return m, nil
}

// Read is a snapshot with its manifest, or with the error of reading that.
type Read struct {
	Item
	Manifest *backup.Manifest
	Err      error
}

// Manifests yields the given snapshots with their manifests, in order. It reads
// several at once.
func (c *Cluster) Manifests(ctx context.Context, items []Item) iter.Seq[Read] {
	return func(yield func(Read) bool) {
		for batch := range slices.Chunk(items, 4*manifestReaders) {
			out := make([]Read, len(batch))
			var g errgroup.Group
			g.SetLimit(manifestReaders)
			for i, item := range batch {
				g.Go(func() error {
					out[i].Item = item
					out[i].Manifest, out[i].Err = c.Manifest(ctx, item)
					return nil
				})
			}
			_ = g.Wait() // each error is in its row
			for _, r := range out {
				if !yield(r) {
					return
				}
			}
		}
	}
}

// FirstReadable returns the first manifest of items that can be read, or nil
// if there is none.
func FirstReadable(ctx context.Context, c *Cluster, items []Item) (*backup.Manifest, error) {
	for _, i := range items {
		m, err := c.Manifest(ctx, i)
		if err == nil {
			return m, nil
		}
		if !damagedBy(err) && !errors.Is(err, fs.ErrNotExist) && !c.deniedOnly(ctx, err) {
			return nil, err
		}
	}
	return nil, nil
}

// deniedOnly reports whether the store denies that one object: it gives others. An
// object of another owner, or one that was moved to an archive, is no reason to stop.
func (c *Cluster) deniedOnly(ctx context.Context, err error) bool {
	switch {
	case errors.Is(err, backup.ErrArchived):
		return true
	case !errors.Is(err, fs.ErrPermission):
		return false
	case c.repo.doubt != nil: // there is no marker, and a manifest was given
		return true
	}
	_, err = c.objects.Read(ctx, backup.MarkerKey, backup.MaxMarkerBytes)
	return err == nil
}

// Commit creates the manifest of a snapshot whose data is stored. Without the
// manifest the data is litter; with it the data must be there. So the manifest
// goes last. Commit deletes the data if it is certain that there will be no
// manifest: also if the repository is not there any more, see [Repository.Check].
func (c *Cluster) Commit(ctx context.Context, m *backup.Manifest) error {
	if m.Cluster != c.Name() {
		return fmt.Errorf("create manifest: it is of cluster %s, not of %s", m.Cluster, c.Name())
	}
	m.Repository = c.repo.id
	// Until now nobody can have seen the data. From now on it must stay.
	if ctx.Err() != nil {
		c.Data().Discard(ctx, m.DataKeys()...)
		return fmt.Errorf("create manifest: %w", context.Cause(ctx))
	}
	raw, err := m.Marshal()
	if err == nil {
		// While the data was stored, the disk may have been unmounted or replaced.
		err = c.repo.Check(ctx)
	}
	if err != nil {
		c.Data().Discard(ctx, m.DataKeys()...)
		return fmt.Errorf("create manifest: %w", err)
	}
	err = storage.Keep(ctx, c.repo.store, m.Key(), raw)
	if err == nil {
		return nil
	}
	asking, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUpTime)
	defer cancel()
	if errors.As(err, new(*storage.NotKeptError)) {
		return fmt.Errorf("create manifest: %w", c.withdraw(asking, m, err))
	}
	// Perhaps only the answer was lost. The object itself can tell. The data
	// stays: the manifest may still turn up, and then needs it. If it does not,
	// the data is litter, which prune removes.
	if storage.Kept(asking, c.repo.store, m.Key(), raw) == nil {
		return nil
	}
	return fmt.Errorf("create manifest: %w", err)
}

// withdraw removes what there is of a manifest that the store did not keep, and then its
// data. Nothing of it may look like a backup.
func (c *Cluster) withdraw(ctx context.Context, m *backup.Manifest, err error) error {
	if left := storage.Remove(ctx, c.repo.store, m.Key()); left != nil {
		return fmt.Errorf("%w; it is no backup, and what is there of it could not be removed: %w", err, left)
	}
	c.Data().Discard(ctx, m.DataKeys()...)
	return fmt.Errorf("%w; no manifest of this snapshot is left", err)
}
