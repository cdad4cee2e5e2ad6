package storage

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"sync"
)

// DownloadOptions say how much a [Download] does at once. It holds PartBytes
// times Concurrency of memory at most, less for a smaller object.
type DownloadOptions struct {
	PartBytes   int64 // size of one range; default 8 MiB
	Concurrency int   // ranges held or in flight; default 4
}

func (o DownloadOptions) withDefaults() DownloadOptions {
	if o.PartBytes <= 0 {
		o.PartBytes = 8 << 20
	}
	if o.Concurrency <= 0 {
		o.Concurrency = 4
	}
	return o
}

// Download returns the bytes of obj, all obj.Size of them and in order, and
// begins at once to fetch ranges of it in parallel. Each range resumes and is
// pinned like [OpenResuming]; its error comes from Read at its place. The
// caller must close the reader, which ends everything: when Close has returned
// no goroutine is left. Close may interrupt a Read.
func Download(ctx context.Context, s Store, obj Object, o DownloadOptions) io.ReadCloser {
	o = o.withDefaults()
	ctx, cancel := context.WithCancelCause(ctx)
	d := &download{
		ctx: ctx, cancel: cancel, store: s, obj: obj, pin: newPin(obj), partBytes: o.PartBytes,
		parts: make(chan chan part, o.Concurrency),
		free:  make(chan []byte, o.Concurrency),
	}
	for range o.Concurrency {
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

	parts chan chan part // what each range will yield, in order; closed after the last
	free  chan []byte    // the buffers: whoever holds one may fetch a range

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
	// The bytes are here whatever closing says.
	_ = r.Close()
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
