// Package snapfile writes a database as a snapshot file, as etcd makes it, and knows those that a
// leader has sent to a member.
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

// Sent returns the newest database in a member's snap directory that a leader has sent it, and the
// raft entry that it has everything up to; 0 if there is none.
func Sent(dir string) (name string, index uint64) {
	found, _ := filepath.Glob(filepath.Join(dir, "*.snap.db"))
	for _, path := range found {
		var i uint64
		n, err := fmt.Sscanf(filepath.Base(path), "%016x.snap.db", &i)
		if err == nil && n == 1 && i > index {
			name, index = filepath.Base(path), i
		}
	}
	return name, index
}

// Unused refuses what has the entries up to one only, and not those of a database that a leader has
// sent. All of that one is committed, and a crash came before the log of the member could say so.
func Unused(path string, index, has uint64) error {
	return backup.WithHint(&backup.RefusedError{Reason: fmt.Sprintf(
		"%s is a database that a leader has sent, with the entries up to %d, and what was rescued has those up to %d: the "+
			"member crashed before its WAL showed the newer one, and etcd would drop it", path, index, has)},
		"to take the newer one, which has all that was committed up to there, copy it to DIR/member/snap/db, and give "+
			"--from-data-dir=DIR --without-wal alone; to do without it, rescue a copy of the folder that lacks this file")
}
