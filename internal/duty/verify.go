package duty

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/codec"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/repository/choice"
	"github.com/etcd-backupd/backupd/internal/retention"
	"github.com/etcd-backupd/backupd/internal/snapshot"
)

// Verify is the duty to read stored snapshots back as a whole.
type Verify struct {
	*Subject
	Policy     retention.Policy
	Identities codec.Identities
}

// Do verifies one snapshot: the one that the run names, else the latest of those that
// are not suspect. It marks a defect in the repository, where everything heeds it
// until the snapshot is verified again or deleted.
func (v *Verify) Do(ctx context.Context, run Run) Outcome {
	in, item, err := v.find(ctx, run.Snapshot)
	var result verdict
	if err != nil {
		result.found = fmt.Errorf("find the snapshot to verify: %w", err)
	} else {
		result = v.verify(ctx, in, item, run.Progress)
	}
	err = result.err()
	var none *repository.NotFoundError // or it was removed meanwhile
	switch gone := errors.As(err, &none); {
	case gone && run.Snapshot == "":
		return Outcome{Result: Passed, Reason: none.Error()}
	case gone: // the error says nothing about the cluster
		return Outcome{Result: Failed, Snapshot: item.ID, Err: err}
	}
	if !errors.Is(err, backup.ErrCorrupt) && errors.Is(ctx.Err(), context.Canceled) {
		return Outcome{Result: Failed, Snapshot: item.ID, Err: err} // the error says nothing about the snapshot
	}
	v.ended(ctx, item, result)
	if err != nil {
		v.Log.Error("verification failed", "snapshot", item.ID, "err", err)
		return Outcome{Result: Failed, Snapshot: item.ID, Err: err}
	}
	return Outcome{Result: Succeeded, Snapshot: item.ID}
}

// find returns the snapshot to verify.
func (v *Verify) find(ctx context.Context, ref string) (*repository.Cluster, repository.Item, error) {
	in, err := v.Open(ctx)
	if v.MayCreate && errors.Is(err, fs.ErrNotExist) {
		return nil, repository.Item{}, &repository.NotFoundError{Reason: "there is no repository yet"}
	}
	if err != nil {
		return nil, repository.Item{}, err
	}
	if ref != "" {
		item, err := choice.FindIn(ctx, in, ref)
		return in, item, err
	}
	item, err := choice.Undoubted(ctx, in)
	return in, item, err
}

func (v *Verify) verify(
	ctx context.Context, in *repository.Cluster, item repository.Item, p backup.Progress,
) (out verdict) {
	verifier := &snapshot.Verifier{Cluster: in, Identities: v.Identities, Spool: v.Spool, Progress: p}
	m, err := in.Manifest(ctx, item)
	if err == nil && m.Encoding.Encryption != "" && len(v.Identities) == 0 {
		verifier.Depth = snapshot.StoredOnly // only the stored bytes can be compared here
	}
	_, out.found = verifier.Verify(ctx, item)
	// A defect counts even if it cannot be marked. Then both errors are returned.
	out.unrecorded = verifier.Record(ctx, item, out.found, Host("backupd"))
	if out.err() == nil && item.Marked(backup.MarkDamaged) {
		// The mark may stay: stored bytes cannot disprove each defect.
		out.found = stillMarked(ctx, in, item)
	}
	return out
}

// stillMarked returns the defect that the repository has on record.
func stillMarked(ctx context.Context, in *repository.Cluster, item repository.Item) error {
	now, err := in.Item(ctx, item.ID)
	switch {
	case errors.As(err, new(*repository.NotFoundError)):
		return nil // nothing is left of it
	case err != nil || !now.Marked(backup.MarkDamaged):
		return err
	}
	return now.Defect()
}

// ended notes the result, so that nothing counts on a snapshot that was found
// damaged.
func (v *Verify) ended(ctx context.Context, item repository.Item, result verdict) {
	var defect *backup.DefectError
	damaged := errors.As(result.found, &defect)
	if damaged && defect.Kind == backup.Doubted {
		return // the name of its manifest says so already
	}
	v.Known.judged(item.ID, result, v.Now())
	if !damaged && !item.Marked(backup.MarkDamaged) {
		return
	}
	// Now an older snapshot counts, or this one counts again. Its manifest may not
	// have been read yet.
	if _, err := v.Look(ctx, v.Policy); err != nil {
		v.Log.Warn("repository cannot be read", "err", err)
	}
}
