// Package content stores and reads the data objects of one cluster: the bytes of
// its snapshots, compressed and encrypted.
package content

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/codec"
	"github.com/etcd-backupd/backupd/internal/storage"
)

// cleanUpTime is the most time that is spent on tidiness after a failure, when the
// context of the caller may have ended already.
const cleanUpTime = 10 * time.Second

// Objects are the data objects of one cluster.
type Objects struct {
	Store   storage.Store
	Cluster string
}

// Key names a data object of the cluster.
func (o Objects) Key(name backup.DataName, e backup.Encoding) string {
	return backup.Key{Cluster: o.Cluster, Kind: backup.KindData, Data: name, Suffix: e.Suffix()}.String()
}

// Put stores everything that r yields as a new data object. After an error the
// object may exist all the same, because the answer of the store may have been
// lost.
func (o Objects) Put(ctx context.Context, key string, r io.Reader) error {
	return o.Store.Create(ctx, key, r)
}

// Discard deletes a data object that no manifest will name. It returns no error,
// for nobody could do more: an object that stays is litter, which prune removes.
func (o Objects) Discard(ctx context.Context, key string) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanUpTime)
	defer cancel()
	_ = o.Store.Delete(ctx, key)
}

// ReadBack reads the object key and compares it with want, the bytes that were
// stored. It returns a [*backup.DefectError] if the object is missing or has
// another length, and an error that wraps [backup.ErrCorrupt] if its bytes differ.
func (o Objects) ReadBack(ctx context.Context, key string, want backup.Blob, progress backup.Progress) error {
	r, err := openStored(ctx, o.Store, key, want, func(done, total int64) { progress(backup.StageVerify, done, total) })
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

// Reader yields a snapshot's plain bytes, etcd's file with its trailer, fetched
// in parallel ranges and verified on the way: Read returns io.EOF only when the
// stored and the plain bytes are what the manifest promises.
type Reader struct {
	dec *codec.Decoder
	src io.ReadCloser
}

// Open begins to read a snapshot's data. It returns an error that wraps
// [backup.ErrCorrupt] when the object is missing or has another size, before
// anything is downloaded. progress counts stored bytes; it may be nil.
func (o Objects) Open(
	ctx context.Context, m *backup.Manifest, ids codec.Identities, progress func(done, total int64),
) (*Reader, error) {
	src, err := openStored(ctx, o.Store, m.DataKey(), m.Stored, progress)
	if err != nil {
		return nil, err
	}
	dec, err := codec.NewDecoder(src, m.Encoding, codec.Want{Plain: m.Plain, Stored: m.Stored}, ids)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("open %s: %w", m.DataKey(), err), src.Close())
	}
	return &Reader{dec, src}, nil
}

// Read yields plain bytes.
func (r *Reader) Read(p []byte) (int, error) { return r.dec.Read(p) }

// Close ends the download.
func (r *Reader) Close() error { return errors.Join(r.src.Close(), r.dec.Close()) }

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
	if err := CompareSize(obj, want); err != nil {
		return nil, err
	}
	r := storage.Download(ctx, s, obj)
	if progress == nil {
		return r, nil
	}
	return &counted{ReadCloser: r, total: obj.Size, report: progress}, nil
}

// CompareSize reports whether an object has another size than it should.
func CompareSize(obj storage.Object, want backup.Blob) error {
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
func (o Objects) Sum(ctx context.Context, key string) (backup.Blob, error) {
	obj, err := o.Store.Stat(ctx, key)
	if err != nil {
		return backup.Blob{}, err
	}
	r := storage.Download(ctx, o.Store, obj)
	defer r.Close()
	return sum(r)
}

func sum(r io.Reader) (backup.Blob, error) {
	h := sha256.New()
	n, err := io.CopyBuffer(h, struct{ io.Reader }{r}, make([]byte, 256<<10))
	return backup.Blob{Bytes: n, SHA256: backup.Digest(h.Sum(nil))}, err
}
