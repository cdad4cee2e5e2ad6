package metapage

import (
	"encoding/binary"
	"fmt"
	"os"
)

// AppendFreelist adds an empty list of free pages to a database that has none, as etcd leaves it: bbolt
// visits every page to find the free ones before it changes anything, which for a gigabyte takes
// seconds. With this list it appends instead, and leaves no list again, so that a server that
// boots finds all free pages as ever. newest is what [Read] returns of the file. Bytes after the
// last page are overwritten.
func AppendFreelist(path string, newest Meta) (err error) {
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
	if _, err := f.ReadAt(m, newest.At+headerBytes); err != nil {
		return fmt.Errorf("read meta page: %w", err)
	}
	list, txid, pageBytes := newest.Pages, newest.TxID+1, int64(newest.PageBytes)
	order.PutUint64(m[listAt:], list)
	order.PutUint64(m[pagesAt:], list+1)
	order.PutUint64(m[txidAt:], txid)
	order.PutUint64(m[checksumAt:], checksum(m))

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
