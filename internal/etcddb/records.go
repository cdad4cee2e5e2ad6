package etcddb

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// maxPiece bounds a page with its overflow pages: far more than a record that etcd takes.
const maxPiece = 64 << 20

// keptBytes bounds the memory for pages with pointers.
const keptBytes = 16 << 20

// paged is a database of which a reader yields any part. Nothing is mapped: what is damaged is an
// error, and cannot end the process.
type paged struct {
	r         io.ReaderAt
	pageBytes uint64
	kept      map[uint64][]byte // pages with pointers, to which each walk comes back
}

func (p *paged) read(id, n uint64) ([]byte, error) {
	if b := p.kept[id]; b != nil && n == 1 {
		return b, nil
	}
	if n > maxPiece/p.pageBytes {
		return nil, backup.Corruptf("%d pages are more than a record can have", n)
	}
	b := make([]byte, n*p.pageBytes) // a new piece, which stays as it is
	if k, err := p.r.ReadAt(b, int64(id*p.pageBytes)); k < len(b) {
		if err == nil || errors.Is(err, io.EOF) {
			err = backup.Corruptf("the database ends after %d of its bytes: %w", k, io.ErrUnexpectedEOF)
		}
		return nil, err
	}
	if n == 1 && parsePage(b).flags == branchPage && len(p.kept) < keptBytes/len(b) {
		p.kept[id] = b
	}
	return b, nil
}

// Records reads single records of a database, without the rest of it. It is for one goroutine.
type Records struct {
	im     *image
	bucket *bucket
}

// Record is one record of the key bucket.
type Record struct {
	Revision  backup.Revision
	Sub       int64
	Tombstone bool
	Raw       []byte // as stored: the mvccpb.KeyValue
}

// OpenRecords opens the database that is the first bytes of r, which has size bytes. It and
// [Records.From] read the pages on the way to the records, and verify no others.
func OpenRecords(r io.ReaderAt, size int64) (*Records, error) {
	m, err := readMeta(r, size)
	if err != nil {
		return nil, err
	}
	if m.Pages > uint64(size)/uint64(m.PageBytes) {
		return nil, backup.Corruptf("%d bytes are too few for %d pages of %d bytes", size, m.Pages, m.PageBytes)
	}
	im := &image{m, &paged{r, uint64(m.PageBytes), map[uint64][]byte{}}, nil}
	all, err := newWalker(im, ascending).buckets()
	if err != nil {
		return nil, err
	}
	b, err := findBucket(all, keyBucket)
	return &Records{im, b}, err
}

// From calls visit for the records from a revision on, in their order, until it returns false.
func (r *Records) From(revision backup.Revision, visit func(Record) bool) error {
	w := newWalker(r.im, ascending)
	w.from = binary.BigEndian.AppendUint64(nil, uint64(revision))
	return w.bucket(r.bucket, func(e *element) error {
		if bytes.Compare(e.key, w.from) < 0 {
			return nil
		}
		rk, _, err := readRecord(e)
		if err != nil {
			return fmt.Errorf("read record: %w", err)
		}
		if !visit(Record{backup.Revision(rk.main), rk.sub, rk.tombstone, e.value}) {
			return errStop
		}
		return nil
	})
}
