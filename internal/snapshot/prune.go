package snapshot

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/storage"
)

// PruneResult is what a prune has done.
type PruneResult struct {
	Removed []backup.SnapshotID
	// Bytes is the size of the data that was removed, litter included.
	Bytes int64
	// Skipped are snapshots that were to go and did not, with why: they were pinned
	// or removed by somebody else since the plan was made.
	Skipped []SkippedSnapshot
	// Locked are objects that a lock of the store holds.
	Locked []string
	Litter []string            // data objects
	Pins   []backup.SnapshotID // of snapshots that are gone
	// Uploads is how many uploads were aborted that had been left unfinished, of any
	// cluster of the repository.
	Uploads int
}

// SkippedSnapshot is one that was to go and did not.
type SkippedSnapshot struct {
	ID  backup.SnapshotID
	Why string
}

// Run does what the plan says, and nothing beyond it. Before each deletion it
// looks again whether the snapshot is pinned and there. What is locked is
// skipped; the first other failure ends the run, for whatever is wrong with
// the store, deleting more is no answer. The result tells what was done in
// either case.
func (p *Pruner) Run(ctx context.Context, plan *PrunePlan) (*PruneResult, error) {
	p.setDefaults()
	r := &pruning{Pruner: p}
	if plan.Cluster != p.Cluster {
		return &r.PruneResult, fmt.Errorf("the plan is for cluster %s, not for %s", plan.Cluster, p.Cluster)
	}
	return &r.PruneResult, r.run(ctx, plan)
}

// pruning is one run.
type pruning struct {
	*Pruner
	PruneResult
}

func (r *pruning) run(ctx context.Context, plan *PrunePlan) error {
	for _, d := range slices.Backward(plan.Decisions) { // the oldest first
		if d.Keep {
			continue
		}
		if err := r.remove(ctx, d); err != nil {
			return fmt.Errorf("remove snapshot %s: %w", d.ID, err)
		}
	}
	for _, id := range plan.Pins {
		if err := r.removePin(ctx, Entry{Cluster: r.Cluster, ID: id}); err != nil {
			return fmt.Errorf("remove pin of %s: %w", id, err)
		}
	}
	for _, o := range plan.Litter {
		if err := r.removeLitter(ctx, o); err != nil {
			return fmt.Errorf("remove litter: %w", err)
		}
	}
	return r.sweep(ctx)
}

func (r *pruning) remove(ctx context.Context, d PruneDecision) error {
	if pinned, err := r.pinned(ctx, d.Entry); err != nil || pinned {
		r.skip(d, "it was pinned", err)
		return err
	}
	manifest, err := r.readRaw(ctx, d.Entry.Key())
	switch {
	case errors.Is(err, fs.ErrNotExist):
		r.skip(d, "it was removed by somebody else", nil) // who removes the data too, or it becomes litter
		return nil
	case err != nil:
		return err
	}
	// The manifest goes first: the snapshot stops existing before it stops being
	// whole.
	if deleted, err := r.delete(ctx, d.Entry.Key()); !deleted {
		return err
	}
	// Whoever pins now finds no manifest, and says so. Who pinned just before was
	// told that it was done.
	pinned, err := r.pinned(ctx, d.Entry)
	if err != nil || pinned {
		r.skip(d, "it was pinned", err)
		return errors.Join(err, r.putBack(ctx, d.Entry, manifest))
	}
	r.Removed = append(r.Removed, d.ID)
	r.Log.Info("removed snapshot", "cluster", r.Cluster, "snapshot", d.ID, "reasons", d.Reasons)
	for _, o := range d.data {
		deleted, err := r.delete(ctx, o.Key)
		if err != nil {
			return err
		}
		if deleted {
			r.Bytes += o.Size
		}
	}
	return nil
}

func (r *pruning) skip(d PruneDecision, why string, err error) {
	if err != nil {
		return // which ends the run, and is told by itself
	}
	r.Skipped = append(r.Skipped, SkippedSnapshot{d.ID, why})
	r.Log.Info("skipped snapshot", "cluster", r.Cluster, "snapshot", d.ID, "reason", why)
}

// delete reports whether the object is gone now. It is not, without an error, if
// it is locked.
func (r *pruning) delete(ctx context.Context, key string) (bool, error) {
	err := r.Store.Delete(ctx, key)
	if errors.Is(err, storage.ErrLocked) {
		r.Locked = append(r.Locked, key)
		r.Log.Info("object is locked", "key", key, "err", err)
		return false, nil
	}
	return err == nil, err
}

func (r *pruning) pinned(ctx context.Context, e Entry) (bool, error) {
	_, err := r.Store.Stat(ctx, pinKey(e))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for pin: %w", err)
	}
	return true, nil
}

func (r *pruning) readRaw(ctx context.Context, key string) ([]byte, error) {
	body, err := r.Store.Open(ctx, key, 0, -1)
	if err != nil {
		return nil, fmt.Errorf("look for manifest: %w", err)
	}
	raw, err := io.ReadAll(io.LimitReader(body, backup.MaxManifestBytes+1))
	if err = errors.Join(err, body.Close()); err != nil {
		return nil, fmt.Errorf("read manifest: %w", err)
	}
	if len(raw) > backup.MaxManifestBytes {
		return nil, fmt.Errorf("%s is larger than any manifest: look at it, and remove it by hand", key)
	}
	return raw, nil
}

// putBack makes a snapshot exist again whose manifest was just deleted.
func (r *pruning) putBack(ctx context.Context, e Entry, manifest []byte) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUpTime)
	defer cancel()
	if err := r.Store.Create(ctx, e.Key(), bytes.NewReader(manifest)); err != nil && !errors.Is(err, fs.ErrExist) {
		return backup.WithHint(fmt.Errorf("put the manifest back of a snapshot that was pinned meanwhile: %w", err),
			"its data is still there: create %s with the manifest from another copy of the repository", e.Key())
	}
	return nil
}

func (r *pruning) removePin(ctx context.Context, e Entry) error {
	manifests, err := manifestsOf(ctx, r.Store, e.Cluster, e.ID.DataName())
	if err != nil || len(manifests) > 0 {
		return err
	}
	if deleted, err := r.delete(ctx, pinKey(e)); !deleted {
		return err
	}
	r.Pins = append(r.Pins, e.ID)
	r.Log.Info("removed pin of a snapshot that is gone", "cluster", r.Cluster, "snapshot", e.ID)
	return nil
}

func (r *pruning) removeLitter(ctx context.Context, o storage.Object) error {
	k, err := backup.ParseKey(o.Key)
	if err != nil || k.Kind != backup.KindData || k.Cluster != r.Cluster {
		return fmt.Errorf("%s is no data of cluster %s", o.Key, r.Cluster)
	}
	// The slowest of backups may have ended meanwhile.
	manifests, err := manifestsOf(ctx, r.Store, k.Cluster, k.Data)
	if err != nil || len(manifests) > 0 {
		return err
	}
	if deleted, err := r.delete(ctx, o.Key); !deleted {
		return err
	}
	r.Litter = append(r.Litter, o.Key)
	r.Bytes += o.Size
	r.Log.Info("removed data that no manifest names", "key", o.Key, "bytes", o.Size)
	return nil
}

// sweep removes what no listing shows: parts of uploads, and local copies.
func (r *pruning) sweep(ctx context.Context) error {
	n, err := storage.AbortStaleUploads(ctx, r.Store, litterAge)
	r.Uploads = n
	switch {
	case errors.Is(err, fs.ErrPermission):
		// A life-cycle rule of the bucket does it as well.
		r.Log.Warn("unfinished uploads cannot be looked for", "err", err)
	case err != nil:
		return fmt.Errorf("remove unfinished uploads: %w", err)
	}
	if r.Spool == "" {
		return nil
	}
	if err := sweepSpools(r.Spool); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("look through spool folder: %w", err)
	}
	return nil
}
