// Package metapage reads the two pages of a bbolt database from which all others are found, and
// writes a new one with an empty list of free pages.
package metapage

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
)

// A Defect says how a meta page is damaged.
type Defect string

func (d Defect) Error() string { return string(d) }

func defectf(format string, args ...any) error { return Defect(fmt.Sprintf(format, args...)) }

// Meta is one of the two pages (bbolt internal/common/meta.go). bbolt writes them in turn, so
// one may be torn and the other must be good.
type Meta struct {
	At        int64 // byte at which its page begins
	PageBytes uint32
	Root      uint64 // page of the bucket of buckets
	Freelist  uint64 // page of the free list, or NoFreelist
	Pages     uint64 // all pages in use are below this number
	TxID      uint64
}

// NoFreelist is the page of the free list where none is stored.
const NoFreelist = ^uint64(0)

// Of bbolt's page layout (internal/common/page.go and meta.go). All numbers are in the byte order of
// the machine.
const (
	headerBytes = 16 // id uint64, flags uint16, count uint16, overflow uint32
	metaPage    = 0x04
	listPage    = 0x10

	magic   = 0xED0CDAED
	version = 2

	metaBytes  = 64 // what follows is in it
	versionAt  = 4
	sizeAt     = 8
	rootAt     = 16
	listAt     = 32
	pagesAt    = 40
	txidAt     = 48
	checksumAt = 56

	minPageBytes = 512
	maxPageBytes = 1 << 20
)

// Read returns the valid meta page with the higher transaction id, of a database of size bytes at
// the beginning of r. If none is valid it returns a [Defect].
func Read(r io.ReaderAt, size int64) (Meta, error) {
	first, err := readAt(r, 0)
	if err != nil && !errors.As(err, new(Defect)) {
		return Meta{}, err
	}
	if err == nil {
		second, err2 := readAt(r, int64(first.PageBytes))
		if err2 == nil && second.TxID > first.TxID && second.PageBytes == first.PageBytes {
			return second, nil
		}
		return first, nil
	}
	// The damaged page holds the page size: try all sizes, as bbolt does.
	for n := int64(minPageBytes); n <= maxPageBytes && n < size; n <<= 1 {
		if m, err := readAt(r, n); err == nil && int64(m.PageBytes) == n {
			return m, nil
		}
	}
	return Meta{}, err
}

func readAt(r io.ReaderAt, page int64) (Meta, error) {
	var b [metaBytes]byte
	if _, err := r.ReadAt(b[:], page+headerBytes); err != nil {
		if errors.Is(err, io.EOF) {
			return Meta{}, defectf("meta page at byte %d: the file ends before it", page)
		}
		return Meta{}, err
	}
	order := binary.NativeEndian
	if got := order.Uint32(b[:]); got != magic {
		return Meta{}, defectf("meta page at byte %d: magic %#x instead of %#x: not an etcd database",
			page, got, uint32(magic))
	}
	if v := order.Uint32(b[versionAt:]); v != version {
		return Meta{}, defectf("meta page at byte %d: version %d instead of %d", page, v, version)
	}
	if want, sum := order.Uint64(b[checksumAt:]), checksum(b[:]); want != sum {
		return Meta{}, defectf("meta page at byte %d: checksum %016x, its content has %016x",
			page, want, sum)
	}
	m := Meta{
		At:        page,
		PageBytes: order.Uint32(b[sizeAt:]),
		Root:      order.Uint64(b[rootAt:]),
		Freelist:  order.Uint64(b[listAt:]),
		Pages:     order.Uint64(b[pagesAt:]),
		TxID:      order.Uint64(b[txidAt:]),
	}
	if m.PageBytes < minPageBytes || m.PageBytes > maxPageBytes || m.PageBytes&(m.PageBytes-1) != 0 {
		return Meta{}, defectf("meta page at byte %d: page size %d", page, m.PageBytes)
	}
	if m.Pages < 4 {
		return Meta{}, defectf("meta page at byte %d: a database of %d pages", page, m.Pages)
	}
	return m, nil
}

func checksum(meta []byte) uint64 {
	sum := fnv.New64a()
	_, _ = sum.Write(meta[:checksumAt]) // a hash does not fail
	return sum.Sum64()
}
