package snapshot

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

// Reader yields a snapshot's plain bytes, etcd's file with its trailer, fetched
// in parallel ranges and verified on the way: Read returns io.EOF only when the
// stored and the plain bytes are what the manifest promises.
type Reader struct {
	dec *codec.Decoder
	src io.ReadCloser
}

// OpenData begins to read a snapshot's data. It returns an error that wraps
// [backup.ErrCorrupt] when the object is missing or has another size, before
// anything is downloaded. progress counts stored bytes; it may be nil.
func OpenData(ctx context.Context, s storage.Store, m *backup.Manifest, ids codec.Identities, progress func(done, total int64)) (*Reader, error) {
	src, err := openStored(ctx, s, m.DataKey(), m.Stored, progress)
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

// Stored returns what the stored bytes were, complete once Read has ended.
func (r *Reader) Stored() backup.Blob { return r.dec.Stored() }

// Close ends the download.
func (r *Reader) Close() error { return errors.Join(r.src.Close(), r.dec.Close()) }

func openStored(ctx context.Context, s storage.Store, key string, want backup.Blob, progress func(done, total int64)) (io.ReadCloser, error) {
	obj, err := s.Stat(ctx, key)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &DefectError{Kind: DataMissing, Key: key, Err: backup.Corruptf("the manifest's data object is not there")}
	}
	if err != nil {
		return nil, fmt.Errorf("look for %s: %w", key, err)
	}
	if err := codec.Compare("stored object", backup.Blob{Bytes: obj.Size, SHA256: want.SHA256}, want); err != nil {
		return nil, &DefectError{Kind: Truncated, Key: key, Err: err}
	}
	r := storage.Download(ctx, s, obj)
	if progress == nil {
		return r, nil
	}
	return &counted{ReadCloser: r, total: obj.Size, report: progress}, nil
}

// counted tells how much was read.
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

// readBack proves that the store gives back exactly what it was given.
func readBack(ctx context.Context, s storage.Store, key string, want backup.Blob, progress backup.Progress) error {
	r, err := openStored(ctx, s, key, want, func(done, total int64) { progress(backup.StageVerify, done, total) })
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

// sumObject reads a whole object as it is now, whatever its manifest says.
func sumObject(ctx context.Context, s storage.Store, obj storage.Object) (backup.Blob, error) {
	r := storage.Download(ctx, s, obj)
	defer r.Close()
	return sum(r)
}

func sum(r io.Reader) (backup.Blob, error) {
	h := sha256.New()
	n, err := io.CopyBuffer(h, struct{ io.Reader }{r}, make([]byte, 256<<10))
	return backup.Blob{Bytes: n, SHA256: backup.Digest(h.Sum(nil))}, err
}
