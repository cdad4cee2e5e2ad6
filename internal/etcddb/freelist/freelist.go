// Package freelist spares bbolt the search for the free pages of a database.
package freelist

import (
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"os"
)

// Of bbolt's page layout (internal/common/page.go and meta.go). All numbers are in the byte order of
// the machine.
const (
	headerBytes = 16 // id uint64, flags uint16, count uint16, overflow uint32
	metaPage    = 0x04
	listPage    = 0x10

	metaBytes  = 64 // what follows is in it
	listAt     = 32 // page of the list
	pagesAt    = 40 // all pages in use are below this number
	txidAt     = 48
	checksumAt = 56
)

// Append adds an empty list of free pages to a database that has none, as etcd leaves it: bbolt
// visits every page to find the free ones before it changes anything, which for a gigabyte takes
// seconds. With this list it appends instead, and leaves no list again, so that a server that
// boots finds all free pages as ever. meta is the byte at which the newest meta page of the file
// begins. Bytes after the last page are overwritten.
func Append(path string, meta, pageBytes int64) (err error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() {
		if cerr := f.Close(); err == nil {
			err = cerr
		}
	}()
	order, m := binary.NativeEndian, make([]byte, metaBytes)
	if _, err := f.ReadAt(m, meta+headerBytes); err != nil {
		return fmt.Errorf("read meta page: %w", err)
	}
	list, txid := order.Uint64(m[pagesAt:]), order.Uint64(m[txidAt:])+1
	order.PutUint64(m[listAt:], list)
	order.PutUint64(m[pagesAt:], list+1)
	order.PutUint64(m[txidAt:], txid)
	sum := fnv.New64a()
	_, _ = sum.Write(m[:checksumAt]) // a hash does not fail
	order.PutUint64(m[checksumAt:], sum.Sum64())

	// As a transaction of bbolt does: first the new page, then the meta page whose turn it is.
	if err := write(f, list, listPage, pageBytes, nil); err != nil {
		return err
	}
	return write(f, txid%2, metaPage, pageBytes, m)
}

func write(f *os.File, id uint64, flags uint16, pageBytes int64, body []byte) error {
	page := make([]byte, pageBytes)
	binary.NativeEndian.PutUint64(page, id)
	binary.NativeEndian.PutUint16(page[8:], flags)
	copy(page[headerBytes:], body)
	if _, err := f.WriteAt(page, int64(id)*pageBytes); err != nil {
		return fmt.Errorf("write page %d: %w", id, err)
	}
	return nil
}
