package codec

import (
	"io"
	"runtime"
	"sync"

	"github.com/klauspost/compress/zstd"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// workers is how many frames are encoded or decoded at once: more cores than that would wait for
// the disk or the network, and each holds two buffers.
func workers() int { return min(runtime.GOMAXPROCS(0), 4) }

// compressor yields frames and the seek table. One goroutine reads ahead, so that frames are
// compressed in parallel while one is passed on.
type compressor struct {
	src  io.Reader
	zw   *zstd.Encoder
	free chan *frame
	// queue has the frames in their order. There is room for all: sending never blocks.
	queue   chan *frame
	quit    chan struct{}
	running sync.WaitGroup
	failed  error // of src; set before queue is closed

	// Of the reading side only.
	current *frame
	unread  []byte
	table   table
	sum     backup.Blob // of the stored table, once it is made
	err     error       // final
}

// frame is one frame, with buffers that are used again.
type frame struct {
	plain, stored []byte
	ready         chan error // nil once it is worked on
}

func newCompressor(src io.Reader) (*compressor, error) {
	n := workers()
	// SpeedFastest keeps up with etcd's stream on one core. A frame is its own window.
	zw, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(n),
		zstd.WithWindowSize(largeFrame), zstd.WithSingleSegment(true), zstd.WithEncoderCRC(true))
	if err != nil {
		return nil, err
	}
	frames := n + 1 // one is passed on
	c := &compressor{
		src: src, zw: zw, quit: make(chan struct{}),
		free: make(chan *frame, frames), queue: make(chan *frame, frames),
	}
	for range frames {
		c.free <- &frame{ready: make(chan error, 1)} // its buffers are made when they are first needed
	}
	return c, nil
}

func (c *compressor) begin() { c.running.Go(c.readAll) }

// readAll cuts src into frames, until its end or an error.
func (c *compressor) readAll() {
	defer close(c.queue)
	size, plain, stored := frameBytes, 0, 0
	for number := 0; ; number++ {
		var f *frame
		select {
		case f = <-c.free:
		case <-c.quit:
			return
		}
		if cap(f.plain) < size {
			f.plain = make([]byte, size)
		}
		n, err := readFull(c.src, f.plain[:size])
		f.plain = f.plain[:n]
		if err != nil && err != io.EOF {
			c.failed = err
			return
		}
		if n > 0 {
			c.queue <- f
		}
		encode := func() {
			f.stored = c.zw.EncodeAll(f.plain, f.stored[:0])
			f.ready <- nil
		}
		switch {
		case n == 0:
		case number < firstFrames:
			encode() // not beside others: the same bytes must be cut alike
			plain, stored = plain+n, stored+len(f.stored)
			if number == firstFrames-1 && stored < plain/largeRatio {
				size = largeFrame
			}
		default:
			c.running.Go(encode)
		}
		if err == io.EOF {
			return
		}
	}
}

// readFull is [io.ReadFull], but returns the reader's own error: at the end that is io.EOF, however
// much was read, and io.ErrUnexpectedEOF is the word of a source that was cut.
func readFull(r io.Reader, p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var k int
		k, err = r.Read(p[n:])
		n += k
	}
	return n, err
}

// Read yields frames, and then the seek table.
func (c *compressor) Read(p []byte) (int, error) {
	for len(c.unread) == 0 {
		if c.err == nil {
			c.err = c.next()
		}
		if c.err != nil {
			return 0, c.err
		}
	}
	n := copy(p, c.unread)
	c.unread = c.unread[n:]
	return n, nil
}

// next gives back the frame just read and waits for the one after it.
func (c *compressor) next() error {
	if c.current != nil {
		c.free <- c.current
		c.current = nil
	}
	if c.sum.Bytes > 0 {
		return io.EOF // the table was the last
	}
	select {
	case <-c.quit:
		return io.ErrClosedPipe
	default:
	}
	f, ok := <-c.queue
	if !ok {
		if c.failed != nil {
			return c.failed
		}
		c.unread = c.table.marshal()
		c.sum = backup.BlobOf(c.unread)
		return nil
	}
	<-f.ready
	c.table = append(c.table, entryOf(f.stored, len(f.plain)))
	c.current, c.unread = f, f.stored
	return nil
}

// close ends all goroutines.
func (c *compressor) close() {
	select {
	case <-c.quit:
		return
	default:
	}
	close(c.quit)
	c.running.Wait()
	_ = c.zw.Close() // it has no writer that could fail
}
