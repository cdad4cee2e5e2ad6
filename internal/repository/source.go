package repository

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/codec"
	"github.com/etcd-backupd/backupd/internal/repository/content"
	"github.com/etcd-backupd/backupd/internal/restore"
)

// restorable is a stored snapshot as the source of a restore.
type restorable struct {
	from     content.Objects
	manifest *backup.Manifest
	ids      codec.Identities
}

// NewSource returns a stored snapshot as the source of a restore. Its bytes are
// verified against the manifest while they stream into place.
func NewSource(c *Cluster, m *backup.Manifest, ids codec.Identities) restore.Source {
	return &restorable{c.Data(), m, ids}
}

// About implements [restore.Source].
func (r *restorable) About() restore.Origin {
	m := r.manifest
	o := restore.Origin{
		Name:  fmt.Sprintf("snapshot %s of cluster %s", m.ID, m.Cluster),
		Bytes: m.Plain.Bytes - restore.TrailerBytes, Revision: m.Revision,
		Alarms: m.Alarms, Members: m.Members, AuthEnabled: m.AuthEnabled, Leases: m.Leases,
	}
	for _, why := range m.Suspect {
		o.Warnings = append(o.Warnings, "suspect: "+why)
	}
	return o
}

// Place implements [restore.Source].
func (r *restorable) Place(ctx context.Context, f *os.File, progress func(done, total int64)) (err error) {
	data, err := r.from.Open(ctx, r.manifest, r.ids, progress)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, data.Close()) }()
	return restore.Fill(ctx, f, data, r.manifest.Plain.Bytes-restore.TrailerBytes, restore.TrailerBytes)
}
