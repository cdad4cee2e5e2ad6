package etcddb

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/etcddb/metapage"
)

// trailerBytes is the length of the SHA-256 sum that ends a snapshot stream.
const trailerBytes = 32

// Frame holds the facts in the length and the first two pages of a database file.
type Frame struct {
	FileBytes int64
	// DatabaseBytes is the length up to the last page in use. A member's own
	// file is longer, because it grows in steps.
	DatabaseBytes int64
	PageBytes     int
	// HasTrailer reports that the last 32 bytes should be the SHA-256 of all
	// bytes before them.
	HasTrailer bool

	meta metapage.Meta
}

// ReadFrame checks the two meta pages of the file at path, and that the file has
// the length they record. It reads a few kilobytes and maps nothing, so damage
// cannot crash the caller. Defects wrap [backup.ErrCorrupt].
func ReadFrame(path string) (*Frame, error) {
	file, err := openDatabase(path)
	if err != nil {
		return nil, err
	}
	defer file.Close() // only read from
	f, err := readFrame(file)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return f, nil
}

// openDatabase opens a regular file for reading. A pipe or a device may block, and
// has no length to check.
func openDatabase(path string) (*os.File, error) {
	if info, err := os.Stat(path); err != nil {
		return nil, err
	} else if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	return os.Open(path)
}

func readFrame(file *os.File) (*Frame, error) {
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	m, err := readMeta(file, info.Size())
	if err != nil {
		return nil, err
	}
	f := &Frame{FileBytes: info.Size(), PageBytes: int(m.PageBytes), meta: m}
	// Both factors are bounded, so their product cannot overflow.
	if m.Pages > uint64(info.Size())/uint64(m.PageBytes) {
		return nil, backup.Corruptf("file of %d bytes is truncated: its database has %d pages of %d bytes",
			info.Size(), m.Pages, m.PageBytes)
	}
	f.DatabaseBytes = int64(m.Pages) * int64(m.PageBytes)
	switch rest := info.Size() - f.DatabaseBytes; {
	// etcd's own rule is only that the length is 32 more than a multiple of
	// 512: the trailer may follow the slack of a member's own file.
	case rest%512 == trailerBytes:
		f.HasTrailer = true
	case rest%512 != 0:
		return nil, backup.Corruptf("file of %d bytes is truncated or has a torn end: "+
			"%d bytes follow the database, a trailer has %d", info.Size(), rest, trailerBytes)
	}
	return f, nil
}

// readMeta returns the newest meta page of a database of size bytes.
func readMeta(r io.ReaderAt, size int64) (metapage.Meta, error) {
	m, err := metapage.Read(r, size)
	if errors.As(err, new(metapage.Defect)) {
		err = backup.Corruptf("%w", err)
	}
	return m, err
}
