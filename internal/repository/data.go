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
	"github.com/etcd-backupd/backupd/internal/storage"
)

// Data are the data objects of one cluster.
type Data struct {
	store   storage.Store
	cluster string
}

// Key names a data object of the cluster.
func (d Data) Key(name backup.DataName, e backup.Encoding) string {
	return backup.Key{Cluster: d.cluster, Kind: backup.KindData, Data: name, Suffix: e.Suffix()}.String()
}

// Put stores everything that r yields as a new data object. After an error the
// object may exist all the same, because the answer of the store may have been
// lost.
func (d Data) Put(ctx context.Context, key string, r io.Reader) error {
	return d.store.Create(ctx, key, r)
}

// Discard deletes data objects that no manifest will name. It returns no error,
// for nobody could do more: an object that stays is litter, which prune removes.
func (d Data) Discard(ctx context.Context, keys ...string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUpTime)
	defer cancel()
	for _, key := range keys {
		_ = d.store.Delete(ctx, key)
	}
}

// ReadBack reads the object key and compares it with want, the bytes that were
// stored. It returns a [*backup.DefectError] if the object is missing or has
// another length, and an error that wraps [backup.ErrCorrupt] if its bytes differ. Bytes
// that differ are read once more: they may have been changed on their way.
func (d Data) ReadBack(ctx context.Context, key string, want backup.Blob, progress backup.Progress) error {
	err := d.readBack(ctx, key, want, progress)
	if errors.Is(err, backup.ErrCorrupt) && !errors.As(err, new(*backup.DefectError)) {
		if again := d.readBack(ctx, key, want, progress); again == nil || errors.Is(again, backup.ErrCorrupt) {
			err = again
		}
	}
	return err
}

func (d Data) readBack(ctx context.Context, key string, want backup.Blob, progress backup.Progress) error {
	progress(backup.StageVerify, 0, want.Bytes)
	r, err := d.Open(ctx, key, want, func(done, total int64) { progress(backup.StageVerify, done, total) })
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

// Open begins to read stored bytes, in parallel ranges. It returns an error that wraps
// [backup.ErrCorrupt] if the object is missing or has another size than want, before
// anything is downloaded. progress counts stored bytes; it may be nil.
func (d Data) Open(
	ctx context.Context, key string, want backup.Blob, progress func(done, total int64),
) (io.ReadCloser, error) {
	obj, err := d.find(ctx, key, want)
	if err != nil {
		return nil, err
	}
	return storage.Counted(storage.Download(ctx, d.store, obj), obj.Size, progress), nil
}

// OpenAt returns a reader of any part of stored bytes. Its errors are those of [Data.Open].
func (d Data) OpenAt(ctx context.Context, key string, want backup.Blob) (io.ReaderAt, error) {
	obj, err := d.find(ctx, key, want)
	return storage.ReaderAt(ctx, d.store, obj), err
}

// find looks for an object that must be there and have the size of want.
func (d Data) find(ctx context.Context, key string, want backup.Blob) (storage.Object, error) {
	obj, err := d.store.Stat(ctx, key)
	if errors.Is(err, fs.ErrNotExist) {
		return obj, &backup.DefectError{Kind: backup.DataMissing, Key: key,
			Err: backup.Corruptf("the manifest's data object is not there")}
	}
	if err != nil {
		return obj, fmt.Errorf("look for %s: %w", key, err)
	}
	return obj, compareSize(obj, want)
}

// compareSize reports whether an object has another size than it should.
func compareSize(obj storage.Object, want backup.Blob) error {
	if err := codec.Compare("stored object", backup.Blob{Bytes: obj.Size, SHA256: want.SHA256}, want); err != nil {
		return &backup.DefectError{Kind: backup.Truncated, Key: obj.Key, Err: err}
	}
	return nil
}

// Sum reads a whole data object as it is now, whatever its manifest says.
func (d Data) Sum(ctx context.Context, key string) (backup.Blob, error) {
	obj, err := d.store.Stat(ctx, key)
	if err != nil {
		return backup.Blob{}, err
	}
	r := storage.Download(ctx, d.store, obj)
	defer r.Close()
	return sum(r)
}

func sum(r io.Reader) (backup.Blob, error) {
	h := sha256.New()
	n, err := io.CopyBuffer(h, struct{ io.Reader }{r}, make([]byte, 256<<10))
	return backup.Blob{Bytes: n, SHA256: backup.Digest(h.Sum(nil))}, err
}
