package etcddb

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/etcddb/metapage"
)

// bbolt's page layout (internal/common/page.go). All numbers are in the byte
// order of the machine that wrote them.
const (
	pageHeaderBytes = 16 // id uint64, flags uint16, count uint16, overflow uint32
	elementBytes    = 16 // branch: pos, ksize uint32, pgid uint64; leaf: flags, pos, ksize, vsize uint32

	branchPage   = 0x01
	leafPage     = 0x02
	metaPage     = 0x04
	freelistPage = 0x10

	bucketEntry = 0x01 // flag of a leaf element
)

// image is a database without its trailer. Nothing read from a page is believed
// before it is checked against the number of pages.
type image struct {
	metapage.Meta
	source pageSource
	guard  func(read func() error) error // makes errors of faults; nil where nothing is mapped
}

// A pageSource gives access to the bytes of a database.
type pageSource interface {
	// read returns the n pages from id on in one piece. The caller asks only for
	// pages that the meta page counts. The bytes must stay as they are for as long
	// as the image is in use: keys of a page are compared with those below it.
	read(id, n uint64) ([]byte, error)
}

// mapped is a database as one piece of memory.
type mapped struct {
	data      []byte
	pageBytes uint64
}

func (m *mapped) read(id, n uint64) ([]byte, error) {
	return m.data[id*m.pageBytes : (id+n)*m.pageBytes], nil
}

// page is one page with its overflow pages. The page of an inline bucket is part
// of another page's value and has id 0.
type page struct {
	id    uint64
	flags uint16
	count int
	span  uint64 // pages, overflow included
	body  []byte // header included
}

// page returns the page with the given id and checks its header.
func (im *image) page(id uint64) (page, error) {
	if id < 2 || id >= im.Pages {
		return page{}, backup.Corruptf("page %d: outside of the file's pages 2 to %d", id, im.Pages-1)
	}
	first, err := im.source.read(id, 1)
	if err != nil {
		return page{}, fmt.Errorf("page %d: %w", id, err)
	}
	p := parsePage(first)
	if p.id != id {
		return page{}, backup.Corruptf("page %d: calls itself page %d", id, p.id)
	}
	if p.span > im.Pages-id {
		return page{}, backup.Corruptf("page %d: runs over %d pages, past the last page %d", id, p.span, im.Pages-1)
	}
	if p.span > 1 {
		if p.body, err = im.source.read(id, p.span); err != nil {
			return page{}, fmt.Errorf("page %d: %w", id, err)
		}
	}
	return p, nil
}

// checkMetaHeaders verifies the headers of the meta pages, which their checksums
// do not cover. bbolt recovers from one torn meta page, but a header is never
// torn.
func (im *image) checkMetaHeaders() error {
	for id := range uint64(2) {
		b, err := im.source.read(id, 1)
		if err != nil {
			return fmt.Errorf("page %d: %w", id, err)
		}
		p := parsePage(b)
		if p.id != id || p.flags != metaPage {
			return backup.Corruptf("page %d: calls itself page %d with flags %#x, it should be a meta page",
				id, p.id, p.flags)
		}
	}
	return nil
}

// parsePage decodes the header of a page. b must hold at least the header.
func parsePage(b []byte) page {
	return page{
		id:    binary.NativeEndian.Uint64(b),
		flags: binary.NativeEndian.Uint16(b[8:]),
		count: int(binary.NativeEndian.Uint16(b[10:])),
		span:  uint64(binary.NativeEndian.Uint32(b[12:])) + 1,
		body:  b,
	}
}

// element is one entry of a branch or leaf page.
type element struct {
	flags uint32 // leaf only
	child uint64 // branch only
	key   []byte
	value []byte // leaf only
	pair  []byte // key and value, which follow each other in the page
}

// checkElements verifies that the elements lie where bbolt puts them: behind the
// table, one after the other, inside the page. Keys must rise, from low on and
// below high (nil: no limit). [page.element] is safe after this check.
func (p *page) checkElements(low, high []byte) error {
	next := uint64(pageHeaderBytes + p.count*elementBytes)
	if next > uint64(len(p.body)) {
		return backup.Corruptf("page %d: %d elements do not fit", p.id, p.count)
	}
	var prev []byte
	for i := range p.count {
		start, keyLen, valueLen := p.bounds(i)
		end := start + keyLen + valueLen
		if start != next || end > uint64(len(p.body)) {
			return backup.Corruptf("page %d: element %d of %d lies at bytes %d to %d, "+
				"expected to begin at %d and end by %d", p.id, i, p.count, start, end, next, len(p.body))
		}
		next = end
		key := p.body[start : start+keyLen]
		switch {
		case keyLen == 0:
			return backup.Corruptf("page %d: element %d has no key", p.id, i)
		case i == 0 && bytes.Compare(key, low) < 0:
			return backup.Corruptf("page %d: first key %x is less than its parent's %x",
				p.id, clip(key), clip(low))
		case i > 0 && bytes.Compare(prev, key) >= 0:
			return backup.Corruptf("page %d: key %x of element %d is not greater than the one before, %x",
				p.id, clip(key), i, clip(prev))
		}
		prev = key
	}
	if high != nil && prev != nil && bytes.Compare(prev, high) >= 0 {
		return backup.Corruptf("page %d: last key %x is not less than the next page's %x",
			p.id, clip(prev), clip(high))
	}
	return p.checkLength(next)
}

// checkLength verifies the number of overflow pages. end is the first byte behind
// the content. Old versions of bbolt use one page more if the content fills its
// last page exactly. An inline page ends with its content.
func (p *page) checkLength(end uint64) error {
	size := uint64(len(p.body)) / p.span
	if need := (end + size - 1) / size; p.span != need && p.span != end/size+1 || p.id == 0 && end != size {
		return backup.Corruptf("page %d: has %d bytes of content in %d bytes", p.id, end, len(p.body))
	}
	return nil
}

// bounds returns where the key of element i begins in the page, and the
// lengths of key and value.
func (p *page) bounds(i int) (start, keyLen, valueLen uint64) {
	at := uint64(pageHeaderBytes + i*elementBytes)
	e := p.body[at : at+elementBytes]
	if p.flags == branchPage {
		return at + uint64(binary.NativeEndian.Uint32(e)), uint64(binary.NativeEndian.Uint32(e[4:])), 0
	}
	return at + uint64(binary.NativeEndian.Uint32(e[4:])),
		uint64(binary.NativeEndian.Uint32(e[8:])), uint64(binary.NativeEndian.Uint32(e[12:]))
}

// element decodes element i of a page that [page.checkElements] found good.
func (p *page) element(i int) element {
	at := pageHeaderBytes + i*elementBytes
	start, keyLen, valueLen := p.bounds(i)
	e := element{
		key:   p.body[start : start+keyLen],
		value: p.body[start+keyLen : start+keyLen+valueLen],
		pair:  p.body[start : start+keyLen+valueLen],
	}
	if p.flags == branchPage {
		e.child = binary.NativeEndian.Uint64(p.body[at+8:])
	} else {
		e.flags = binary.NativeEndian.Uint32(p.body[at:])
	}
	return e
}

// clip shortens a key for a message: keys can be as long as a page.
func clip(b []byte) []byte { return b[:min(len(b), 40)] }
