package etcddb

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"os"

	"github.com/etcd-backupd/backupd/internal/backup"
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

	meta meta
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
	f := &Frame{FileBytes: info.Size(), PageBytes: int(m.pageBytes), meta: m}
	// Both factors are bounded, so their product cannot overflow.
	if m.pages > uint64(info.Size())/uint64(m.pageBytes) {
		return nil, backup.Corruptf("file of %d bytes is truncated: its database has %d pages of %d bytes",
			info.Size(), m.pages, m.pageBytes)
	}
	f.DatabaseBytes = int64(m.pages) * int64(m.pageBytes)
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

// meta is one of the two pages from which all others are found
// (bbolt internal/common/meta.go). bbolt writes them in turn, so one may be torn
// and the other must be good.
type meta struct {
	at        int64 // byte at which its page begins
	pageBytes uint32
	root      uint64 // page of the bucket of buckets
	freelist  uint64 // page of the free list, or noFreelist
	pages     uint64 // all pages in use are below this number
	txid      uint64
}

const (
	metaMagic   = 0xED0CDAED
	metaVersion = 2
	metaBytes   = 64 // magic to checksum
	noFreelist  = ^uint64(0)

	minPageBytes = 512
	maxPageBytes = 1 << 20
)

// readMeta returns the valid meta with the higher transaction id.
func readMeta(r io.ReaderAt, size int64) (meta, error) {
	first, err := readMetaAt(r, 0)
	if err != nil && !errors.Is(err, backup.ErrCorrupt) {
		return meta{}, err
	}
	if err == nil {
		second, err2 := readMetaAt(r, int64(first.pageBytes))
		if err2 == nil && second.txid > first.txid && second.pageBytes == first.pageBytes {
			return second, nil
		}
		return first, nil
	}
	// The damaged page holds the page size: try all sizes, as bbolt does.
	for n := int64(minPageBytes); n <= maxPageBytes && n < size; n <<= 1 {
		if m, err := readMetaAt(r, n); err == nil && int64(m.pageBytes) == n {
			return m, nil
		}
	}
	return meta{}, err
}

func readMetaAt(r io.ReaderAt, page int64) (meta, error) {
	var b [metaBytes]byte
	if _, err := r.ReadAt(b[:], page+pageHeaderBytes); err != nil {
		if errors.Is(err, io.EOF) {
			return meta{}, backup.Corruptf("meta page at byte %d: the file ends before it", page)
		}
		return meta{}, err
	}
	order := binary.NativeEndian
	if magic := order.Uint32(b[0:]); magic != metaMagic {
		return meta{}, backup.Corruptf("meta page at byte %d: magic %#x instead of %#x: not an etcd database",
			page, magic, uint32(metaMagic))
	}
	if v := order.Uint32(b[4:]); v != metaVersion {
		return meta{}, backup.Corruptf("meta page at byte %d: version %d instead of %d", page, v, metaVersion)
	}
	sum := fnv.New64a()
	sum.Write(b[:metaBytes-8]) // a hash does not fail
	if want := order.Uint64(b[metaBytes-8:]); want != sum.Sum64() {
		return meta{}, backup.Corruptf("meta page at byte %d: checksum %016x, its content has %016x",
			page, want, sum.Sum64())
	}
	m := meta{
		at:        page,
		pageBytes: order.Uint32(b[8:]),
		root:      order.Uint64(b[16:]),
		freelist:  order.Uint64(b[32:]),
		pages:     order.Uint64(b[40:]),
		txid:      order.Uint64(b[48:]),
	}
	if m.pageBytes < minPageBytes || m.pageBytes > maxPageBytes || m.pageBytes&(m.pageBytes-1) != 0 {
		return meta{}, backup.Corruptf("meta page at byte %d: page size %d", page, m.pageBytes)
	}
	if m.pages < 4 {
		return meta{}, backup.Corruptf("meta page at byte %d: a database of %d pages", page, m.pages)
	}
	return m, nil
}
