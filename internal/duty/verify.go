package duty

import (
	"context"
	"errors"
	"fmt"
	"io/fs"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/codec"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/retention"
	"github.com/etcd-backupd/backupd/internal/snapshot"
)

// Verify is the duty to read stored snapshots back as a whole.
type Verify struct {
	*Subject
	Policy     retention.Policy
	Identities codec.Identities
}

// Do verifies one snapshot: the one that the run names, else the newest that is
// not suspect. It marks a defect in the repository, where everything heeds it
// until the snapshot is verified again or deleted.
func (v *Verify) Do(ctx context.Context, run Run) Outcome {
	in, item, err := v.find(ctx, run.Snapshot)
	if run.Snapshot == "" && errors.As(err, new(*repository.NotFoundError)) {
		return Outcome{Result: Passed, Reason: err.Error()}
	}
	if err != nil {
		err = fmt.Errorf("find the snapshot to verify: %w", err)
		v.ended(ctx, item.ID, err)
		return Outcome{Result: Failed, Snapshot: item.ID, Err: err}
	}
	err = v.verify(ctx, in, item, run.Progress)
	if !errors.Is(err, backup.ErrCorrupt) && errors.Is(ctx.Err(), context.Canceled) {
		return Outcome{Result: Failed, Snapshot: item.ID, Err: err} // the error says nothing about the snapshot
	}
	v.ended(ctx, item.ID, err)
	if err != nil {
		v.Log.Error("verification failed", "snapshot", item.ID, "err", err)
		return Outcome{Result: Failed, Snapshot: item.ID, Err: err}
	}
	return Outcome{Result: Succeeded, Snapshot: item.ID}
}

// find returns the snapshot to verify.
func (v *Verify) find(ctx context.Context, ref string) (*repository.Cluster, repository.Item, error) {
	in, err := v.Open(ctx)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, repository.Item{}, &repository.NotFoundError{Reason: "there is no repository yet"}
	}
	if err != nil {
		return nil, repository.Item{}, err
	}
	if ref != "" {
		item, err := in.Find(ctx, ref, v.Now())
		return in, item, err
	}
	var newest *repository.Item
	for item, err := range in.Items(ctx) {
		if err != nil {
			return nil, repository.Item{}, err
		}
		if item.Exists && !item.Suspect {
			newest = &item
		}
	}
	if newest == nil {
		return nil, repository.Item{}, &repository.NotFoundError{
			Reason: "no such snapshot: the repository holds no verified one of cluster " + v.Cluster}
	}
	item, err := in.Item(ctx, newest.ID)
	return in, item, err
}

func (v *Verify) verify(ctx context.Context, in *repository.Cluster, item repository.Item, p backup.Progress) error {
	verifier := &snapshot.Verifier{Cluster: in, Identities: v.Identities, Spool: v.Spool, Progress: p}
	m, err := in.Manifest(ctx, item)
	if err == nil && m.Encoding.Encryption != "" && len(v.Identities) == 0 {
		verifier.Depth = snapshot.StoredOnly // only the stored bytes can be compared here
	}
	_, err = verifier.Verify(ctx, item)
	// The defect counts even if it cannot be marked. Then both errors are
	// returned.
	return errors.Join(err, verifier.Record(ctx, item, err, Host("backupd")))
}

// ended notes the result, so that nothing counts on a snapshot that was found
// damaged.
func (v *Verify) ended(ctx context.Context, id backup.SnapshotID, err error) {
	var defect *backup.DefectError
	if errors.As(err, &defect) && defect.Kind == backup.Doubted {
		return // the name of its manifest says so already
	}
	v.Known.judged(id, err, v.Now())
	if !errors.As(err, &defect) {
		return
	}
	// Now an older snapshot counts, whose manifest may not have been read yet.
	if _, err := v.Look(ctx, v.Policy); err != nil {
		v.Log.Warn("repository cannot be read", "err", err)
	}
}
