package storage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
)

const (
	maxFruitless = 5 // attempts in a row that read nothing
	resumeBase   = 100 * time.Millisecond
	resumeMax    = 5 * time.Second
)

// pin holds the identity that all reads of one object must share. The ETag is
// compared with that of each response rather than asked for in the request:
// this needs no sixth method of a Store, and also holds for services that ignore
// such conditions.
type pin struct {
	key  string
	mu   sync.Mutex
	etag string // guarded by mu; empty until known
}

func newPin(obj Object) *pin { return &pin{key: obj.Key, etag: obj.ETag} }

func (p *pin) check(etag string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.etag == "" {
		p.etag = etag
	}
	if etag != "" && etag != p.etag {
		return fmt.Errorf("read %s: the object was replaced while it was read (ETag %s, now %s)", p.key, p.etag, etag)
	}
	return nil
}

// resuming reads the bytes from off up to end of one object. It opens the object
// when it is first read, and again after each failure that may pass. It must
// not be closed while it is being read.
type resuming struct {
	ctx      context.Context // Read has no parameter for it
	store    Store
	pin      *pin
	off, end int64

	body      io.ReadCloser // nil when it must be opened
	fruitless int
	err       error // final
}

func (r *resuming) Read(p []byte) (int, error) {
	if r.err != nil {
		return 0, r.err
	}
	if len(p) == 0 {
		return 0, nil
	}
	for {
		if r.off == r.end {
			return 0, io.EOF
		}
		n, err := r.attempt(p)
		r.off += int64(n)
		if n > 0 {
			r.fruitless = 0
		}
		if r.err = err; err != nil || n > 0 {
			return n, err
		}
	}
}

// attempt reads once. After a failure that may pass it returns neither bytes nor
// an error; an error means that another attempt is of no use.
func (r *resuming) attempt(p []byte) (int, error) {
	if r.body == nil {
		if err := r.open(); err != nil {
			return 0, err
		}
	}
	n, err := r.body.Read(p[:min(int64(len(p)), r.end-r.off)])
	if err == nil {
		return n, nil
	}
	_ = r.body.Close() // reading has failed or is done: its error says nothing new
	r.body = nil
	switch {
	case err == io.EOF && r.off+int64(n) == r.end:
		return n, nil
	case err == io.EOF:
		return n, backup.Corruptf("read %s: ends after %d bytes, want %d: %w",
			r.pin.key, r.off+int64(n), r.end, io.ErrUnexpectedEOF)
	case r.ctx.Err() != nil:
		return n, fmt.Errorf("read %s: %w", r.pin.key, r.ctx.Err())
	case isFinal(err):
		return n, fmt.Errorf("read %s: %w", r.pin.key, err)
	case n > 0:
		return n, nil
	}
	if r.fruitless++; r.fruitless >= maxFruitless {
		return 0, fmt.Errorf("read %s at byte %d: no progress in %d attempts: %w", r.pin.key, r.off, r.fruitless, err)
	}
	return 0, r.pause()
}

func (r *resuming) open() error {
	body, err := r.store.Open(r.ctx, r.pin.key, r.off, r.end-r.off)
	if err != nil {
		return fmt.Errorf("open %s: %w", r.pin.key, err)
	}
	if err := r.pin.check(ETag(body)); err != nil {
		return errors.Join(err, body.Close())
	}
	r.body = body
	return nil
}

// pause waits a random time below a doubling limit, so that readers whose
// connections break at the same moment do not all come back at the same moment.
func (r *resuming) pause() error {
	limit := min(resumeBase<<(r.fruitless-1), resumeMax)
	t := time.NewTimer(rand.N(limit))
	defer t.Stop()
	select {
	case <-r.ctx.Done():
		return fmt.Errorf("read %s: %w", r.pin.key, r.ctx.Err())
	case <-t.C:
		return nil
	}
}

// Close implements [io.Closer].
func (r *resuming) Close() error {
	if r.err == nil {
		r.err = fmt.Errorf("read %s: %w", r.pin.key, fs.ErrClosed)
	}
	if r.body == nil {
		return nil
	}
	err := r.body.Close()
	r.body = nil
	return err
}

func isFinal(err error) bool {
	for _, final := range []error{fs.ErrNotExist, fs.ErrPermission, fs.ErrInvalid, backup.ErrCorrupt, backup.ErrArchived} {
		if errors.Is(err, final) {
			return true
		}
	}
	return false
}
