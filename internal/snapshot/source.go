package snapshot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/codec"
	"github.com/etcd-backupd/backupd/internal/etcddb"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/restore"
)

// restorable is a stored snapshot as the source of a restore.
type restorable struct {
	from     *repository.Cluster
	manifest *backup.Manifest
	ids      codec.Identities
}

// NewSource returns a stored snapshot as the source of a restore. Its bytes are
// verified against the manifest while they stream into place.
func NewSource(c *repository.Cluster, m *backup.Manifest, ids codec.Identities) restore.Source {
	return &restorable{c, m, ids}
}

// About implements [restore.Source].
func (r *restorable) About() restore.Origin {
	m := r.manifest
	o := restore.Origin{
		Name:  fmt.Sprintf("snapshot %s of cluster %s", m.ID, m.Cluster),
		Bytes: m.Plain.Bytes - restore.TrailerBytes, SHA256: m.Plain.SHA256, Revision: m.Revision,
		Taken: m.StartedAt, EtcdVersion: m.EtcdVersion,
		Alarms: m.Alarms, Members: m.Members, AuthEnabled: m.AuthEnabled, Leases: m.Leases,
		AuthRevision: m.AuthRevision, LiveHash: m.LiveHash, Kubernetes: m.Kubernetes,
	}
	if m.HashKV.Revision > 0 {
		o.HashKV = &m.HashKV
	}
	o.ClusterID, o.QuotaBytes = m.ClusterID, m.QuotaBytes
	for _, why := range m.Suspect {
		o.Warnings = append(o.Warnings, "suspect: "+why)
	}
	for _, why := range m.Unconfirmed {
		o.Warnings = append(o.Warnings, "unconfirmed: "+why)
	}
	if m.V2Keys {
		o.Warnings = append(o.Warnings, "the cluster also served keys of etcd's v2 API (--enable-v2): no snapshot holds "+
			"them, and they will be gone")
	}
	if why := etcddb.NewerWarning(m.StorageVersion); why != "" {
		o.Warnings = append(o.Warnings, why)
	}
	o.Warnings = append(append(o.Warnings, m.Cautions...), m.Kubernetes.Notes()...)
	return o
}

// Try implements [restore.Source].
func (r *restorable) Try(ctx context.Context) (err error) {
	data, err := Open(ctx, r.from, r.manifest, r.ids, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, data.Close()) }()
	if _, err := data.Read(make([]byte, 1)); err != nil && err != io.EOF {
		return fmt.Errorf("read the beginning of %s: %w", r.manifest.DataKey(), err)
	}
	return nil
}

// Place implements [restore.Source].
func (r *restorable) Place(ctx context.Context, f *os.File, progress func(done, total int64)) (err error) {
	data, err := Open(ctx, r.from, r.manifest, r.ids, progress)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, data.Close()) }()
	return restore.Fill(ctx, f, data, r.manifest.Plain.Bytes-restore.TrailerBytes, restore.TrailerBytes)
}

// Content yields a snapshot's plain bytes, etcd's file with its trailer, fetched
// in parallel ranges and verified on the way: Read returns io.EOF only when the
// stored and the plain bytes are what the manifest promises.
type Content struct {
	dec *codec.Decoder
	src io.ReadCloser
}

// Open begins to read a snapshot's data. It returns an error that wraps
// [backup.ErrCorrupt] when the object is missing or has another size, before
// anything is downloaded. progress counts stored bytes; it may be nil.
func Open(
	ctx context.Context, in *repository.Cluster, m *backup.Manifest, ids codec.Identities,
	progress func(done, total int64),
) (*Content, error) {
	src, err := in.Data().Open(ctx, m.DataKey(), m.Stored, progress)
	if err != nil {
		return nil, err
	}
	dec, err := codec.NewDecoder(src, m.Encoding, codec.Want{Plain: m.Plain, Stored: m.Stored, Table: m.Table}, ids)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", m.DataKey(), err), src.Close())
	}
	return &Content{dec, src}, nil
}

// Read yields plain bytes.
func (r *Content) Read(p []byte) (int, error) { return r.dec.Read(p) }

// WriteTo writes all plain bytes in large pieces.
func (r *Content) WriteTo(w io.Writer) (int64, error) { return r.dec.WriteTo(w) }

// Close ends the download.
func (r *Content) Close() error { return errors.Join(r.src.Close(), r.dec.Close()) }

// OpenAt returns a reader of any part of a snapshot's plain bytes: see [codec.ReaderAt], and for what
// proves them docs/format.md. It must be closed.
func OpenAt(
	ctx context.Context, in *repository.Cluster, m *backup.Manifest, ids codec.Identities,
) (*codec.ReaderAt, error) {
	src, err := in.Data().OpenAt(ctx, m.DataKey(), m.Stored)
	if err != nil {
		return nil, err
	}
	want := codec.Want{Plain: m.Plain, Stored: m.Stored, Table: m.Table}
	r, err := codec.NewReaderAt(src, m.Encoding, want, ids)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", m.DataKey(), err)
	}
	return r, nil
}
