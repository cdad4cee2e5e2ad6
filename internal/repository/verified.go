package repository

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/storage"
)

// verifiedReasons say in a mark what a verification read.
var verifiedReasons = map[backup.MarkKind]string{
	backup.MarkVerified: "everything was read and agrees with the manifest",
	backup.MarkReadBack: "the stored bytes are those that were stored; they were not decoded",
}

// Verified states that a verification, which ended at that time, found the snapshot whole, and
// returns the name of the mark. kind says what was read. Then it deletes the older marks that
// say no more, as far as the store allows that. It returns a [*NotFoundError] if the snapshot
// is gone. by names who verified.
func (m Marks) Verified(
	ctx context.Context, i Item, kind backup.MarkKind, at time.Time, by string,
) (backup.Key, error) {
	k := markKey(m.objects.Cluster, i.ID, kind)
	k.Stamp = backup.TimeOf(at)
	mark := backup.Mark{
		Format: backup.MarkFormat, Kind: kind, ID: i.ID, Reason: verifiedReasons[kind], By: by, At: k.Time(),
	}
	raw, err := mark.Marshal()
	if err != nil {
		return k, err
	}
	if err := stillThere(ctx, m.objects, i); err != nil {
		return k, err
	}
	if err := m.store.Create(ctx, k.String(), bytes.NewReader(raw)); err != nil && !errors.Is(err, fs.ErrExist) {
		return k, fmt.Errorf("create mark: %w", err)
	}
	for _, old := range i.Verifications {
		// A full verification says more than one of the stored bytes.
		if old == k || old.Mark == backup.MarkVerified && kind != backup.MarkVerified {
			continue
		}
		err := m.store.Delete(ctx, old.String())
		// It says what was true then, and nobody is misled by it.
		if err != nil && !errors.Is(err, storage.ErrLocked) && !errors.Is(err, fs.ErrPermission) {
			return k, fmt.Errorf("delete the mark of an earlier verification: %w", err)
		}
	}
	return k, nil
}
