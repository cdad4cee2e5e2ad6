package codec

import (
	"cmp"
	"fmt"
	"io"
	"sync"
	"sync/atomic"

	"github.com/klauspost/compress/zstd"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// cutter cuts what was stored into pieces that can be decoded each by itself.
type cutter struct {
	r    io.Reader
	want Want
	scan *scanner      // nil if the bytes are not compressed
	zr   *zstd.Decoder // nil then, too
	n    int64         // plain bytes of the pieces until now
}

func newCutter(r io.Reader, compression string, want Want) (*cutter, error) {
	c := &cutter{r: r, want: want}
	if compression != string(Zstd) {
		return c, nil
	}
	zr, err := newFrameDecoder(workers())
	if err != nil {
		return nil, err
	}
	c.scan, c.zr = newScanner(r), zr
	return c, nil
}

// newFrameDecoder returns a decoder of single frames, for several goroutines at once.
func newFrameDecoder(concurrency int) (*zstd.Decoder, error) {
	return zstd.NewReader(nil, zstd.WithDecoderConcurrency(concurrency), zstd.WithDecoderMaxWindow(maxFrame),
		zstd.WithDecoderMaxMemory(maxFrame))
}

// next reads the stored bytes of the next piece into p. It returns io.EOF at the end.
func (c *cutter) next(p *piece) (err error) {
	if c.scan == nil {
		if p.stored == nil {
			p.stored = make([]byte, frameBytes)
		}
		p.size, err = readFull(c.r, p.stored[:frameBytes])
		if p.stored = p.stored[:p.size]; p.size > 0 && err == io.EOF {
			err = nil // it will come again
		}
	} else if p.stored, p.size, err = c.scan.next(p.stored); err == io.EOF {
		return c.compareTable()
	}
	if err != nil {
		return err
	}
	if c.n += int64(p.size); c.n > c.want.Plain.Bytes {
		// This also stops a small object that decodes to a huge one.
		return fmt.Errorf("more than the %d plain bytes in the manifest", c.want.Plain.Bytes)
	}
	return nil
}

// compareTable returns io.EOF if the seek table is the promised one.
func (c *cutter) compareTable() error {
	if c.want.Table != nil {
		if err := Compare("seek table", backup.BlobOf(c.scan.table.marshal()), *c.want.Table); err != nil {
			return err
		}
	}
	return io.EOF
}

// decode decodes a piece. It may be called by several goroutines.
func (c *cutter) decode(p *piece) (err error) {
	if c.zr == nil {
		p.plain = p.stored
		return nil
	}
	p.plain, err = decodeFrame(c.zr, p.stored, p.plain, p.size)
	return err
}

// decodeFrame decodes one frame into buf, whose bytes are dropped. The checksum at the end of the
// frame is compared on the way.
func decodeFrame(zr *zstd.Decoder, frame, buf []byte, size int) ([]byte, error) {
	if cap(buf) < size {
		buf = make([]byte, 0, size)
	}
	plain, err := zr.DecodeAll(frame, buf[:0])
	if err == nil && len(plain) != size {
		err = fmt.Errorf("%d plain bytes, the frame says %d", len(plain), size)
	}
	return plain, err
}

// piece is a part of the stored bytes and what they decode to, in buffers that are used again.
type piece struct {
	number        int
	stored, plain []byte
	size          int        // how many plain bytes there must be
	ready         chan error // says that it is decoded
	users         atomic.Int32
}

// pieces decodes in parallel: one goroutine reads ahead, several decode, one hashes, and the
// caller takes the pieces in their order.
type pieces struct {
	cut  *cutter
	free chan *piece
	// queue and hashed have the pieces in their order. There is room for all: sending never blocks.
	queue, hashed chan *piece
	quit          chan struct{}
	closing       sync.Once
	running       sync.WaitGroup
	failed        error // of the reading; set before queue is closed
	plain         meter // of the hashing goroutine, until it has ended
	current       *piece
}

func newPieces(c *cutter) *pieces {
	n := workers() + 2 // one is read, one is passed on
	d := &pieces{
		cut: c, free: make(chan *piece, n), queue: make(chan *piece, n), hashed: make(chan *piece, n),
		quit: make(chan struct{}), plain: *newMeter(),
	}
	for range n {
		d.free <- &piece{ready: make(chan error, 1)}
	}
	d.running.Go(d.readAll)
	d.running.Go(func() {
		for p := range d.hashed {
			_, _ = d.plain.Write(p.plain) // a hash does not fail
			d.release(p)
		}
	})
	return d
}

func (d *pieces) readAll() {
	defer close(d.queue)
	for number := 0; ; number++ {
		var p *piece
		select {
		case p = <-d.free:
		case <-d.quit:
			return
		}
		if err := d.cut.next(p); err != nil {
			d.failed = err
			return
		}
		p.number = number
		p.users.Store(2)
		d.queue <- p
		d.running.Go(func() { p.ready <- d.cut.decode(p) })
	}
}

// release gives a piece back when both the hash and the caller are done with it.
func (d *pieces) release(p *piece) {
	if p.users.Add(-1) == 0 {
		d.free <- p
	}
}

// next returns the plain bytes of the next piece, which stay as they are until the call after it.
// It returns io.EOF after the last.
func (d *pieces) next() ([]byte, error) {
	if d.current != nil {
		d.release(d.current)
		d.current = nil
	}
	p, ok := <-d.queue
	if !ok {
		return nil, cmp.Or(d.failed, io.ErrClosedPipe)
	}
	if err := <-p.ready; err != nil {
		return nil, fmt.Errorf("frame %d: %w", p.number, err)
	}
	d.current = p
	d.hashed <- p
	return p.plain, nil
}

// close ends all goroutines and returns the size and the sum of the pieces that next has returned.
func (d *pieces) close() backup.Blob {
	d.closing.Do(func() {
		close(d.quit)
		close(d.hashed)
		d.running.Wait()
		if d.cut.zr != nil {
			d.cut.zr.Close()
		}
	})
	return d.plain.blob()
}
