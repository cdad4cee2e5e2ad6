// Package snapfile writes a database as a snapshot file, as etcd makes it.
package snapfile

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/disk"
)

// Write writes the first size bytes of a database to a new file, with the SHA-256 that ends
// etcd's snapshots, and returns the SHA-256 of the whole file. The file appears under its name
// when it is whole; it replaces one that has the name.
func Write(ctx context.Context, path, database string, size int64) (digest backup.Digest, err error) {
	in, err := os.Open(database)
	if err != nil {
		return digest, err
	}
	defer in.Close() // only read from
	part := path + disk.TempSuffix
	out, err := os.OpenFile(part, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return digest, err
	}
	whole, sum := sha256.New(), sha256.New()
	_, err = io.CopyBuffer(io.MultiWriter(out, whole, sum), struct{ io.Reader }{
		&cancellable{ctx, io.NewSectionReader(in, 0, size)},
	}, make([]byte, 1<<20))
	if err == nil {
		_, err = io.MultiWriter(out, whole).Write(sum.Sum(nil))
	}
	if err == nil {
		err = disk.SyncFile(out)
	}
	if err = errors.Join(err, out.Close()); err == nil {
		err = os.Rename(part, path)
	}
	if err = errors.Join(err, disk.Remove(part)); err == nil {
		err = disk.Sync(filepath.Dir(path))
	}
	if err != nil {
		return digest, fmt.Errorf("write %s: %w", path, err)
	}
	return backup.Digest(whole.Sum(nil)), nil
}

// cancellable is a reader that fails once ctx has ended.
type cancellable struct {
	ctx context.Context
	r   io.Reader
}

func (c *cancellable) Read(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	return c.r.Read(p)
}
