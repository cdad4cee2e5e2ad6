package repository

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/codec"
	"github.com/etcd-backupd/backupd/internal/repository/catalog"
	"github.com/etcd-backupd/backupd/internal/storage"
)

// Data is the data objects of a cluster.
type Data struct{ objects catalog.Catalog }

// Key names a data object of the cluster.
func (d Data) Key(name backup.DataName, e backup.Encoding) string {
	return backup.Key{Cluster: d.objects.Cluster, Kind: backup.KindData, Data: name, Suffix: e.Suffix()}.String()
}

// Put stores everything that r yields as a new data object. After an error the
// object may exist all the same, because the answer of the store may have been
// lost.
func (d Data) Put(ctx context.Context, key string, r io.Reader) error {
	return d.objects.Store.Create(ctx, key, r)
}

// Discard deletes a data object that no manifest will name. It returns no error,
// for nobody could do more: an object that stays is litter, which prune removes.
func (d Data) Discard(ctx context.Context, key string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUpTime)
	defer cancel()
	_ = d.objects.Store.Delete(ctx, key)
}

// ReadBack reads the object key and compares it with want, the bytes that were
// stored. It returns a [*backup.DefectError] if the object is missing or has
// another length, and an error that wraps [backup.ErrCorrupt] if its bytes differ.
func (d Data) ReadBack(ctx context.Context, key string, want backup.Blob, progress backup.Progress) error {
	r, err := openStored(ctx, d.objects.Store, key, want, func(done, total int64) { progress(backup.StageVerify, done, total) })
	if err != nil {
		return err
	}
	defer r.Close()
	got, err := sum(r)
	if err != nil {
		return err
	}
	return codec.Compare("stored object", got, want)
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
func (d Data) Open(
	ctx context.Context, m *backup.Manifest, ids codec.Identities, progress func(done, total int64),
) (*Content, error) {
	src, err := openStored(ctx, d.objects.Store, m.DataKey(), m.Stored, progress)
	if err != nil {
		return nil, err
	}
	dec, err := codec.NewDecoder(src, m.Encoding, codec.Want{Plain: m.Plain, Stored: m.Stored}, ids)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", m.DataKey(), err), src.Close())
	}
	return &Content{dec, src}, nil
}

// Read yields plain bytes.
func (c *Content) Read(p []byte) (int, error) { return c.dec.Read(p) }

// Close ends the download.
func (c *Content) Close() error { return errors.Join(c.src.Close(), c.dec.Close()) }

func openStored(
	ctx context.Context, s storage.Store, key string, want backup.Blob, progress func(done, total int64),
) (io.ReadCloser, error) {
	obj, err := s.Stat(ctx, key)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &backup.DefectError{Kind: backup.DataMissing, Key: key,
			Err: backup.Corruptf("the manifest's data object is not there")}
	}
	if err != nil {
		return nil, fmt.Errorf("look for %s: %w", key, err)
	}
	if err := compareSize(obj, want); err != nil {
		return nil, err
	}
	r := storage.Download(ctx, s, obj)
	if progress == nil {
		return r, nil
	}
	return &counted{ReadCloser: r, total: obj.Size, report: progress}, nil
}

// compareSize reports whether an object has another size than it should.
func compareSize(obj storage.Object, want backup.Blob) error {
	if err := codec.Compare("stored object", backup.Blob{Bytes: obj.Size, SHA256: want.SHA256}, want); err != nil {
		return &backup.DefectError{Kind: backup.Truncated, Key: obj.Key, Err: err}
	}
	return nil
}

// counted reports how much was read.
type counted struct {
	io.ReadCloser
	done, total int64
	report      func(done, total int64)
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.done += int64(n)
	c.report(c.done, c.total)
	return n, err
}

// Sum reads a whole data object as it is now, whatever its manifest says.
func (d Data) Sum(ctx context.Context, key string) (backup.Blob, error) {
	obj, err := d.objects.Store.Stat(ctx, key)
	if err != nil {
		return backup.Blob{}, err
	}
	r := storage.Download(ctx, d.objects.Store, obj)
	defer r.Close()
	return sum(r)
}

func sum(r io.Reader) (backup.Blob, error) {
	h := sha256.New()
	n, err := io.CopyBuffer(h, struct{ io.Reader }{r}, make([]byte, 256<<10))
	return backup.Blob{Bytes: n, SHA256: backup.Digest(h.Sum(nil))}, err
}
