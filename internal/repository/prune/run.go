package prune

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/repository/catalog"
	"github.com/etcd-backupd/backupd/internal/storage"
)

// putBackTime bounds the work that must be done even if the context of the caller
// has ended.
const putBackTime = 10 * time.Second

// Result says which objects a prune removed, and which it could not remove.
type Result struct {
	Removed []backup.SnapshotID
	// Bytes is the size of the data that was removed, litter included.
	Bytes int64
	// Skipped are snapshots of the plan that were not removed, with the reason:
	// since the plan was made somebody pinned or removed them.
	Skipped []Skipped
	// Locked are objects that a lock of the store holds.
	Locked []string
	Litter []string     // data objects
	Marks  []backup.Key // without a purpose
	// Marked are the data objects that were marked as litter, and stay for now.
	Marked []string
	// Uploads is the number of unfinished uploads that were aborted, of any
	// cluster of the repository.
	Uploads int
}

// Skipped is a snapshot that the plan removes and the prune did not.
type Skipped struct {
	ID     backup.SnapshotID
	Reason string
}

// Run does what the plan says and nothing else. Before the first deletion it
// makes sure that the snapshots that must always stay are there. Before each it
// makes sure that the snapshot is there and not pinned. It skips locked objects.
// Any other failure ends it, because it is wrong to go on deleting in a store that
// is in trouble. The result is complete in either case. by names who removes, in the
// marks that it makes. The log is one of the cluster, which it names.
func Run(ctx context.Context, c *repository.Cluster, plan *Plan, by string, log *slog.Logger) (*Result, error) {
	store := c.Repository().Store()
	r := &pruning{
		cluster: c, store: store, objects: catalog.Catalog{Store: store, Cluster: c.Name()}, by: by, log: log,
	}
	if plan.Cluster != c.Name() {
		return &r.Result, fmt.Errorf("the plan is for cluster %s, not for %s", plan.Cluster, c.Name())
	}
	return &r.Result, r.apply(ctx, plan)
}

// pruning is one prune in progress.
type pruning struct {
	cluster *repository.Cluster
	store   storage.Store
	objects catalog.Catalog
	by      string
	log     *slog.Logger
	Result
}

func (r *pruning) apply(ctx context.Context, plan *Plan) error {
	r.warn(plan)
	if err := r.checkFloor(ctx, plan); err != nil {
		return err
	}
	for _, d := range slices.Backward(plan.Decisions) { // the oldest first
		if d.Keep {
			continue
		}
		if plan.Allowed != nil {
			if err := plan.Allowed(); err != nil {
				return err
			}
		}
		if err := r.remove(ctx, d); err != nil {
			return fmt.Errorf("remove snapshot %s: %w", d.ID, err)
		}
	}
	for _, k := range plan.Marks {
		if err := r.removeMark(ctx, k); err != nil {
			return fmt.Errorf("remove mark of %s: %w", k.DataName(), err)
		}
	}
	for _, i := range plan.Litter {
		if err := r.removeLitter(ctx, i, plan.removed[i.Name]); err != nil {
			return fmt.Errorf("remove litter: %w", err)
		}
	}
	for _, i := range plan.Found {
		err := r.cluster.Marks().Note(ctx, backup.Mark{
			Kind: backup.MarkLitter, Data: i.Name, Reason: "no manifest names it", By: r.by,
		})
		if err != nil {
			return err
		}
		for _, o := range i.Data {
			r.Marked = append(r.Marked, o.Key)
			r.log.Info("marked data that no manifest names", "key", o.Key, "bytes", o.Size)
		}
	}
	return r.abortUploads(ctx)
}

// removeMark removes a mark without a purpose. Without a mark of litter its data only
// stays for longer. Any other mark is looked at again: its snapshot may exist by now.
func (r *pruning) removeMark(ctx context.Context, k backup.Key) error {
	remove := r.removeRest
	if k.Mark == backup.MarkLitter || k.Mark == backup.MarkRemoved {
		remove = func(ctx context.Context, key string, _ backup.DataName) (bool, error) {
			return r.delete(ctx, key, r.store.Delete)
		}
	}
	deleted, err := remove(ctx, k.String(), k.DataName())
	if deleted {
		r.Marks = append(r.Marks, k)
		r.log.Info("removed mark", "of", k.DataName(), "mark", k.Mark)
	}
	return err
}

// warn logs faults of the repository that prevent removals.
func (r *pruning) warn(plan *Plan) {
	for _, id := range plan.Orphans {
		r.log.Warn("a pinned snapshot has lost its manifest, its data is kept", "snapshot", id)
	}
	var doubts []error
	for _, d := range plan.Decisions {
		if defect := d.Item.Defect(); defect != nil && d.Item.Taken != backup.Suspect {
			doubts = append(doubts, defect)
		}
	}
	if len(doubts) > 0 { // one line for all: there may be thousands
		r.log.Warn("snapshots do not count as verified", "count", len(doubts), "newest",
			doubts[0])
	}
}

// checkFloor refuses a plan that is out of date: somebody removed a snapshot that
// must stay.
func (r *pruning) checkFloor(ctx context.Context, plan *Plan) error {
	if !plan.Removes() {
		return nil
	}
	for _, k := range plan.floor {
		there, err := r.objects.Has(ctx, k)
		if err == nil && !there {
			err = noSuch(k.ID)
		}
		if err != nil {
			return fmt.Errorf("nothing was removed: a snapshot that must stay is missing: %w", err)
		}
	}
	return nil
}

func (r *pruning) remove(ctx context.Context, d Decision) error {
	pin := repository.MarkKey(&d.Item, backup.MarkPin)
	pinned, err := r.objects.Has(ctx, pin)
	if err != nil {
		return err
	}
	if pinned {
		r.skip(d, "it was pinned")
		return nil
	}
	key := d.Item.Key().String()
	manifest, err := r.objects.Read(ctx, key, backup.MaxManifestBytes)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		r.skip(d, "it was removed by somebody else") // the other removes the data too, or it becomes litter
		return nil
	case backup.Withheld(err):
		r.skip(d, "its manifest cannot be read here")
		return nil
	case err != nil:
		return fmt.Errorf("read manifest: %w", err)
	case len(manifest) > backup.MaxManifestBytes:
		return fmt.Errorf("%s is larger than any manifest: look at it, and remove it by hand", key)
	}
	if err := r.announce(ctx, d); err != nil {
		return err
	}
	// The manifest goes first: the snapshot stops existing before it stops being
	// whole.
	if deleted, err := r.delete(ctx, key, r.store.Delete); !deleted {
		return errors.Join(err, r.takeBack(ctx, d, err))
	}
	// A pin that begins now finds no manifest, and fails. A pin that was made just
	// before was reported to its user as made: it must hold.
	pinned, err = r.objects.Has(ctx, pin)
	if err == nil && !pinned {
		err = storage.Gone(ctx, r.store, key)
	}
	if err != nil || pinned {
		if err == nil {
			r.skip(d, "it was pinned")
		}
		failed := putBack(ctx, r.store, key, manifest)
		return errors.Join(err, failed, r.takeBack(ctx, d, failed))
	}
	r.Removed = append(r.Removed, d.ID)
	r.log.Info("removed snapshot", "snapshot", d.ID, "reasons", d.Reasons)
	for _, o := range d.Item.Data {
		deleted, err := r.delete(ctx, o.Key, r.removed)
		if err != nil {
			return err
		}
		if deleted {
			r.Bytes += o.Size
		}
	}
	return r.removeMarks(ctx, d.Item)
}

// announce marks the snapshot as removed, before it is: whoever misses it must see that
// it was not lost. A mark of an earlier attempt would end too early.
func (r *pruning) announce(ctx context.Context, d Decision) error {
	if at := d.Item.MarkedAt(backup.MarkRemoved); !at.IsZero() && time.Since(at) > repository.LitterAge {
		if err := r.store.Delete(ctx, repository.MarkKey(&d.Item, backup.MarkRemoved).String()); err != nil {
			return fmt.Errorf("delete the mark of an earlier removal: %w", err)
		}
	}
	reason := backup.ReasonOf(fmt.Errorf("retention: %s", strings.Join(d.Reasons, "; ")))
	return r.cluster.Marks().Note(ctx, removal(d.Item.Key(), reason, r.by))
}

// takeBack deletes the mark of a removal that did not happen. After a failure it stays:
// it is not known what happened, and the next prune looks again.
func (r *pruning) takeBack(ctx context.Context, d Decision, failed error) error {
	if failed != nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), putBackTime)
	defer cancel()
	err := r.store.Delete(ctx, repository.MarkKey(&d.Item, backup.MarkRemoved).String())
	if errors.Is(err, storage.ErrLocked) {
		return nil // a later prune deletes it
	}
	return err
}

// removeMarks removes the marks of a snapshot that is gone, but for that of the
// removal.
func (r *pruning) removeMarks(ctx context.Context, i repository.Item) error {
	for _, k := range repository.MarkKeys(&i) {
		if k.Mark == backup.MarkRemoved {
			continue
		}
		if _, err := r.delete(ctx, k.String(), r.store.Delete); err != nil {
			return err
		}
	}
	return nil
}

func (r *pruning) skip(d Decision, reason string) {
	r.Skipped = append(r.Skipped, Skipped{d.ID, reason})
	r.log.Info("skipped snapshot", "snapshot", d.ID, "reason", reason)
}

// delete reports whether the object is gone now, as far as by tells. For a locked object it
// returns false without an error.
func (r *pruning) delete(
	ctx context.Context, key string, by func(context.Context, string) error,
) (bool, error) {
	err := by(ctx, key)
	if errors.Is(err, storage.ErrLocked) {
		r.Locked = append(r.Locked, key)
		r.log.Info("object is locked", "key", key, "err", err)
		return false, nil
	}
	return err == nil, err
}

// removed deletes an object and makes sure that it is gone.
func (r *pruning) removed(ctx context.Context, key string) error {
	return storage.Remove(ctx, r.store, key)
}

// putBack creates the manifest again that was just deleted.
func putBack(ctx context.Context, s storage.Store, key string, manifest []byte) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), putBackTime)
	defer cancel()
	err := storage.Keep(ctx, s, key, manifest)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return backup.WithHint(fmt.Errorf("snapshot was pinned meanwhile: create its manifest again: %w", err),
			"its data is still there: create %s with the manifest from another copy of the repository", key)
	}
	return nil
}

// removeLitter deletes data that no manifest names, and then its mark. If backupd
// removed the manifest, its name is known, and the store is asked for it.
func (r *pruning) removeLitter(ctx context.Context, i repository.Item, manifest string) error {
	if k, err := backup.ParseKey(manifest); err == nil {
		if there, err := r.objects.Has(ctx, k); err != nil || there {
			return err
		}
	}
	for _, o := range i.Data {
		k, err := backup.ParseKey(o.Key)
		if err != nil || k.Kind != backup.KindData || k.Cluster != r.cluster.Name() {
			return fmt.Errorf("%s is no data of cluster %s", o.Key, r.cluster.Name())
		}
		deleted, err := r.removeRest(ctx, o.Key, k.Data)
		if !deleted {
			return err
		}
		r.Litter, r.Bytes = append(r.Litter, o.Key), r.Bytes+o.Size
		r.log.Info("removed data that no manifest names", "key", o.Key, "bytes", o.Size)
	}
	if !i.Marked(backup.MarkLitter) {
		return nil
	}
	_, err := r.delete(ctx, repository.MarkKey(&i, backup.MarkLitter).String(), r.store.Delete)
	return err
}

// removeRest deletes the rest of a snapshot, unless the snapshot exists now: a
// very slow backup may have ended meanwhile.
func (r *pruning) removeRest(ctx context.Context, key string, of backup.DataName) (bool, error) {
	claimed, err := r.objects.Claimed(ctx, of)
	if err != nil || claimed {
		return false, err
	}
	return r.delete(ctx, key, r.removed)
}

// abortUploads removes the parts of unfinished uploads, which no listing shows.
func (r *pruning) abortUploads(ctx context.Context) error {
	n, err := r.cluster.Repository().AbortStaleUploads(ctx)
	r.Uploads = n
	switch {
	case errors.Is(err, fs.ErrPermission):
		// A life-cycle rule of the bucket does it as well.
		r.log.Warn("unfinished uploads cannot be listed", "err", err)
	case err != nil:
		return fmt.Errorf("remove unfinished uploads: %w", err)
	}
	return nil
}
