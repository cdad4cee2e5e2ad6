package restore

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync/atomic"
)

// flushEvery is how much is written before the kernel is asked to begin
// writing it to the disk, so that the final fsync does not wait for all of it.
const flushEvery = 32 << 20

// behindBuffers is how many buffers a [behindWriter] has, of behindBytes each.
const (
	behindBuffers = 3
	behindBytes   = 512 << 10
)

// behindWriter writes a file from its beginning while the next bytes are
// already fetched, decoded and hashed by somebody else.
type behindWriter struct {
	free   chan []byte
	full   chan []byte
	done   chan error
	failed atomic.Bool
}

// newBehindWriter begins to write the first size bytes it is given to f; the
// rest is dropped. close must be called.
func newBehindWriter(f *os.File, size int64) *behindWriter {
	w := &behindWriter{free: make(chan []byte, behindBuffers), full: make(chan []byte, behindBuffers), done: make(chan error, 1)}
	for range behindBuffers {
		w.free <- make([]byte, behindBytes)
	}
	go func() { w.done <- w.run(f, size) }()
	return w
}

func (w *behindWriter) run(f *os.File, size int64) (err error) {
	off, flushed := int64(0), int64(0)
	for b := range w.full {
		if keep := min(int64(len(b)), size-off); keep > 0 && err == nil {
			if _, err = f.WriteAt(b[:keep], off); err != nil {
				err = fmt.Errorf("write database: %w", err)
				w.failed.Store(true)
			}
			off += keep
		}
		if off-flushed >= flushEvery {
			beginWriteback(f, flushed, off-flushed)
			flushed = off
		}
		w.free <- b[:cap(b)]
	}
	return err
}

// close waits until everything is written and returns the first error.
func (w *behindWriter) close() error {
	close(w.full)
	return <-w.done
}

// copyBehind hands everything src yields to w and returns how much that was.
func copyBehind(ctx context.Context, w *behindWriter, src io.Reader) (n int64, err error) {
	for !w.failed.Load() {
		if ctx.Err() != nil {
			return n, context.Cause(ctx)
		}
		b := <-w.free
		k, err := src.Read(b)
		n += int64(k)
		w.full <- b[:k]
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
	return n, nil // the writer's error says why
}
