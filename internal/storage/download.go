package storage

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"sync"
)

// A download holds downloadParts ranges of downloadPart bytes in memory at most,
// less of a smaller object.
const (
	downloadPart  = 8 << 20 // bytes of one range
	downloadParts = 4       // ranges held or in flight
)

// Download returns the bytes of obj, all obj.Size of them and in order, and
// begins at once to fetch ranges of it in parallel. A range that breaks off is
// opened again where it stopped, after a pause, and fails after several
// attempts in a row that yielded nothing; its error comes from Read at its
// place. An error of Open is final: the stores retry an opening
// if that can help.
//
// Every opening must show the same ETag, that of obj if it has one, so that
// bytes of two objects never mix. An object that ends before obj.Size is
// backup.ErrCorrupt and io.ErrUnexpectedEOF.
//
// The caller must close the reader, which ends everything: when Close has
// returned no goroutine is left. Close may interrupt a Read.
func Download(ctx context.Context, s Store, obj Object) io.ReadCloser {
	return newDownload(ctx, s, obj, downloadPart, downloadParts)
}

func newDownload(ctx context.Context, s Store, obj Object, partBytes int64, parts int) *download {
	ctx, cancel := context.WithCancelCause(ctx)
	d := &download{
		ctx: ctx, cancel: cancel, store: s, obj: obj, pin: newPin(obj), partBytes: partBytes,
		parts: make(chan chan part, parts),
		free:  make(chan []byte, parts),
	}
	for range parts {
		d.free <- nil // a buffer is made when it is first needed
	}
	d.running.Go(d.fetchAll)
	return d
}

type download struct {
	ctx       context.Context
	cancel    context.CancelCauseFunc
	store     Store
	obj       Object
	pin       *pin
	partBytes int64
	running   sync.WaitGroup

	parts chan chan part // one for each range, in order; closed after the last
	free  chan []byte    // the buffers: a range is fetched with one in hand

	// Of the reading side only.
	current part
	unread  []byte // the rest of current
	err     error  // final
}

// part is a fetched range, and the buffer it is in.
type part struct {
	bytes []byte
	err   error
}

func (d *download) fetchAll() {
	defer close(d.parts)
	for off := int64(0); off < d.obj.Size; off += d.partBytes {
		var buf []byte
		select {
		case buf = <-d.free:
		case <-d.ctx.Done():
			return
		}
		result := make(chan part, 1)
		d.parts <- result // never blocks: there is room for one per buffer
		end := min(off+d.partBytes, d.obj.Size)
		d.running.Go(func() { result <- d.fetch(buf, off, end) })
	}
}

func (d *download) fetch(buf []byte, off, end int64) part {
	if int64(cap(buf)) < end-off {
		buf = make([]byte, end-off)
	}
	buf = buf[:end-off]
	r := &resuming{ctx: d.ctx, store: d.store, pin: d.pin, off: off, end: end}
	if _, err := io.ReadFull(r, buf); err != nil {
		_ = r.Close() // reading has failed: its error says nothing new
		return part{err: err}
	}
	_ = r.Close() // the bytes are here, even if closing fails
	return part{bytes: buf}
}

// Read implements [io.Reader].
func (d *download) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	for len(d.unread) == 0 {
		if d.err == nil {
			d.err = d.next()
		}
		if d.err != nil {
			return 0, d.err
		}
	}
	n := copy(p, d.unread)
	d.unread = d.unread[n:]
	return n, nil
}

// next gives the buffer just read back and waits for the range after it.
func (d *download) next() error {
	if d.current.bytes != nil {
		d.free <- d.current.bytes // never blocks: it came from there
		d.current = part{}
	}
	select {
	case result, ok := <-d.parts:
		if !ok {
			if err := d.interrupted(); err != nil {
				return err
			}
			return io.EOF
		}
		// fetch watches ctx itself and always answers.
		d.current = <-result
	case <-d.ctx.Done():
		return d.interrupted()
	}
	if d.current.err != nil {
		if err := d.interrupted(); err != nil {
			return err
		}
		return d.current.err
	}
	d.unread = d.current.bytes
	return nil
}

func (d *download) interrupted() error {
	if d.ctx.Err() == nil {
		return nil
	}
	return fmt.Errorf("read %s: %w", d.obj.Key, context.Cause(d.ctx))
}

// Close implements [io.Closer].
func (d *download) Close() error {
	d.cancel(fs.ErrClosed)
	d.running.Wait()
	return nil
}
