package etcddb

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/etcddb/keyset"
	"github.com/etcd-backupd/backupd/internal/etcddb/metapage"
)

// maxDepth is far above the depth of any B+tree with at least two entries a page
// that fits in a file.
const maxDepth = 64

// errStop ends a walk early without an error.
var errStop = errors.New("stop")

// direction of a walk over a bucket.
type direction int

const (
	ascending direction = iota
	descending
)

// bucket is one top-level bucket: the root page of its tree, or for a small
// one the page itself, held inline in its parent.
type bucket struct {
	name   []byte
	root   uint64
	inline []byte
}

// walker visits trees in key order or in reverse. To meet a page twice is a
// defect, so a loop of pages cannot hold it.
type walker struct {
	im    *image
	seen  keyset.Bitmap
	order direction
	from  []byte // pages whose keys are all smaller are not read
	visit func(e *element) error
	entry element // one for all visits: each would be garbage
}

func newWalker(im *image, order direction) *walker {
	return &walker{im: im, seen: keyset.NewBitmap(im.Pages), order: order}
}

// bucket calls visit for every entry of b.
func (w *walker) bucket(b *bucket, visit func(e *element) error) error {
	w.visit = visit
	err := w.walkBucket(b)
	if err != nil && !errors.Is(err, errStop) {
		return fmt.Errorf("bucket %q: %w", clip(b.name), err)
	}
	return nil
}

func (w *walker) walkBucket(b *bucket) error {
	if b.root != 0 {
		return w.tree(b.root, nil, nil, 0)
	}
	if len(b.inline) < pageHeaderBytes {
		return backup.Corruptf("inline page of %d bytes", len(b.inline))
	}
	p := parsePage(b.inline)
	if p.flags != leafPage || p.id != 0 || p.span != 1 {
		return backup.Corruptf("inline page has flags %#x, number %d and %d pages", p.flags, p.id, p.span)
	}
	return w.leaf(&p, nil, nil)
}

// tree visits the pages below id, whose keys must all be in [low, high).
func (w *walker) tree(id uint64, low, high []byte, depth int) error {
	if depth > maxDepth {
		return backup.Corruptf("page %d: tree is deeper than %d pages", id, maxDepth)
	}
	p, err := w.im.page(id)
	if err != nil {
		return err
	}
	if err := w.reach(&p); err != nil {
		return err
	}
	switch p.flags {
	case leafPage:
		return w.leaf(&p, low, high)
	case branchPage:
		return w.branch(&p, low, high, depth)
	}
	return backup.Corruptf("page %d: flags %#x are neither branch nor leaf", id, p.flags)
}

// reach marks the page and its overflow pages as used. None may be marked before.
func (w *walker) reach(p *page) error {
	for id := p.id; id < p.id+p.span; id++ {
		if w.seen.Has(id) {
			return backup.Corruptf("page %d: in use twice", id)
		}
		w.seen.Set(id)
	}
	return nil
}

func (w *walker) branch(p *page, low, high []byte, depth int) error {
	if p.count == 0 {
		return backup.Corruptf("page %d: branch without elements", p.id)
	}
	if err := p.checkElements(low, high); err != nil {
		return err
	}
	for n := range p.count {
		i := w.index(n, p.count)
		e, end := p.element(i), high
		if i+1 < p.count {
			end = p.element(i + 1).key
		}
		if end != nil && bytes.Compare(end, w.from) <= 0 {
			continue
		}
		if err := w.tree(e.child, e.key, end, depth+1); err != nil {
			return err
		}
	}
	return nil
}

func (w *walker) leaf(p *page, low, high []byte) error {
	if err := p.checkElements(low, high); err != nil {
		return err
	}
	for n := range p.count {
		w.entry = p.element(w.index(n, p.count))
		if err := w.visit(&w.entry); err != nil {
			if p.id == 0 || errors.Is(err, errStop) {
				return err
			}
			return fmt.Errorf("page %d: %w", p.id, err)
		}
	}
	return nil
}

func (w *walker) index(n, count int) int {
	if w.order == descending {
		return count - 1 - n
	}
	return n
}

// buckets returns the top-level buckets in name order and leaves the pages of
// the list itself marked in w.
func (w *walker) buckets() ([]bucket, error) {
	var all []bucket
	w.visit = func(e *element) error {
		if e.flags != bucketEntry || len(e.value) < bucketHeaderBytes {
			return backup.Corruptf("entry %q is not a bucket", clip(e.key))
		}
		all = append(all, bucket{
			name:   e.key,
			root:   binary.NativeEndian.Uint64(e.value),
			inline: e.value[bucketHeaderBytes:],
		})
		return nil
	}
	if err := w.tree(w.im.Root, nil, nil, 0); err != nil {
		return nil, fmt.Errorf("list of buckets: %w", err)
	}
	return all, nil
}

// bucketHeaderBytes is the length of the header of an inline page: the root page
// and a sequence number that etcd does not use.
const bucketHeaderBytes = 16

// checkFreelist verifies a stored free list against the pages in use. w must have
// visited all of them. etcd on Linux stores no list: all other pages are free.
func (w *walker) checkFreelist() error {
	if w.im.Freelist == metapage.NoFreelist {
		return nil
	}
	p, err := w.im.page(w.im.Freelist)
	if err != nil {
		return fmt.Errorf("free list: %w", err)
	}
	if p.flags != freelistPage {
		return backup.Corruptf("free list: page %d has flags %#x", p.id, p.flags)
	}
	if err := w.reach(&p); err != nil {
		return fmt.Errorf("free list: %w", err)
	}
	// A count that does not fit in the header is the first entry instead.
	ids, count := p.body[pageHeaderBytes:], uint64(p.count)
	if count == 0xFFFF {
		count, ids = binary.NativeEndian.Uint64(ids), ids[8:]
	}
	if count > uint64(len(ids))/8 {
		return backup.Corruptf("free list: %d entries do not fit in page %d", count, p.id)
	}
	for i := range count {
		id := binary.NativeEndian.Uint64(ids[i*8:])
		if id < 2 || id >= w.im.Pages || w.seen.Has(id) {
			return backup.Corruptf("free list: page %d is in use, listed twice or outside of the file", id)
		}
		w.seen.Set(id)
	}
	for id := uint64(2); id < w.im.Pages; id++ {
		if !w.seen.Has(id) {
			return backup.Corruptf("page %d: neither in use nor in the free list", id)
		}
	}
	return nil
}
