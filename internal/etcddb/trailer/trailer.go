// Package trailer verifies the SHA-256 with which etcd ends a snapshot.
package trailer

import (
	"context"
	"crypto/sha256"
	"fmt"
	"hash"
	"os"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// Bytes is the length of the SHA-256 sum that ends a snapshot stream.
const Bytes = sha256.Size

// ErrNone is returned for a file that does not end in a SHA-256 sum: a copy of
// member/snap/db, or a snapshot whose end is missing. It wraps [backup.ErrCorrupt].
var ErrNone = backup.Corruptf("no SHA-256 trailer at the end")

// open opens a regular file for reading. A pipe or a device may block, and
// has no length to check.
func open(path string) (*os.File, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	return os.Open(path)
}

// Verify reads the whole file at path and compares the SHA-256 of the
// database with the trailer. It calls progress, if not nil, with the number of
// bytes read so far. A difference wraps [backup.ErrCorrupt] and names both sums; a
// missing trailer is [ErrNone].
func Verify(ctx context.Context, path string, progress func(n int64)) error {
	_, err := Sum(ctx, path, progress)
	return err
}

// Sum is [Verify], and returns the SHA-256 of the whole file, its
// trailer included.
func Sum(ctx context.Context, path string, progress func(n int64)) (whole backup.Digest, err error) {
	file, err := open(path)
	if err != nil {
		return whole, err
	}
	defer file.Close() // only read from
	sum := sha256.New()
	got, want, err := sumOf(ctx, file, sum, progress)
	if err != nil {
		return whole, fmt.Errorf("verify %s: %w", path, err)
	}
	if got != want {
		// etcdutl begins with the same words, and scripts look for them.
		return whole, backup.Corruptf("expected sha256 %s, got %s in %s", want, got, path)
	}
	sum.Write(want[:]) // a hash does not fail
	sum.Sum(whole[:0])
	return whole, nil
}

// sumOf returns the SHA-256 of all bytes before the trailer, and the sum in
// the trailer. sum is an empty SHA-256 that these bytes go into.
func sumOf(
	ctx context.Context, file *os.File, sum hash.Hash, progress func(n int64),
) (got, want backup.Digest, err error) {
	info, err := file.Stat()
	if err != nil {
		return got, want, err
	}
	// The length alone decides, as in etcdutl: damage to the meta pages must be
	// reported as two different sums, not by another message.
	if info.Size()%512 != Bytes {
		return got, want, ErrNone
	}
	end := info.Size() - Bytes
	buf := make([]byte, 256<<10)
	for off := int64(0); off < end; {
		if err := ctx.Err(); err != nil {
			return got, want, context.Cause(ctx)
		}
		n, err := file.ReadAt(buf[:min(int64(len(buf)), end-off)], off)
		if n == 0 && err != nil {
			return got, want, fmt.Errorf("read at byte %d: %w", off, err)
		}
		sum.Write(buf[:n]) // a hash does not fail
		off += int64(n)
		if progress != nil {
			progress(off)
		}
	}
	if _, err := file.ReadAt(want[:], end); err != nil {
		return got, want, fmt.Errorf("read trailer: %w", err)
	}
	sum.Sum(got[:0])
	return got, want, nil
}
