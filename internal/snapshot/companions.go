package snapshot

import (
	"context"
	"errors"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/companion"
	"github.com/etcd-backupd/backupd/internal/repository"
)

// attach stores the companion files of a snapshot whose data is stored, and names them in its
// manifest. The data is never given up for them: the manifest says what is missing, and why.
func attach(ctx context.Context, t *Taker, to *repository.Cluster, m *backup.Manifest) {
	if t.Companions.None() {
		return
	}
	archive := t.Companions.Collect(ctx)
	m.Companions = archive.About
	if err := archive.Store(ctx, to.Data(), m.FilesKey(), t.Codec); err != nil {
		archive.Lost(err)
	}
	for _, missing := range m.Companions.Missing {
		t.log().Error("a companion file is not stored", "path", missing.Path, "reason", missing.Reason)
	}
}

// companions verifies the companion files of a snapshot whose data is whole.
func (v *Verifier) companions(ctx context.Context, m *backup.Manifest) error {
	key := m.FilesKey()
	if key == "" {
		return nil
	}
	// Bytes that differ are read once more in both cases: they may have been changed on their way.
	err := v.Cluster.Data().ReadBack(ctx, key, m.Companions.Stored, func(backup.Stage, int64, int64) {})
	if err == nil && v.Depth == Full {
		_, err = companion.Read(ctx, v.Cluster.Data(), m, v.Identities)
	}
	if errors.Is(err, backup.ErrCorrupt) {
		return &backup.DefectError{Kind: backup.CompanionsBad, Key: key, Err: err}
	}
	return err
}
