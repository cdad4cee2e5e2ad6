// Package behind lets a writer go on while its bytes are still worked on. The
// bytes go to a goroutine through a few buffers, so that two slow steps, such
// as decoding and hashing, or downloading and writing to a disk, take the time
// of one.
package behind

import (
	"io"
	"sync/atomic"
)

// A Writer has a few buffers: one is filled, one is worked on, one waits.
const (
	buffers     = 3
	bufferBytes = 512 << 10
)

// Writer hands all bytes written to it to a function in another goroutine, in
// order. It is for one writer at a time, which must close it.
type Writer struct {
	buf    []byte // being filled
	free   chan []byte
	full   chan []byte
	done   chan error
	failed atomic.Pointer[error]
}

// NewWriter returns a Writer that hands bytes to work. work must not keep them.
// After work has returned an error it is not called again.
func NewWriter(work func(p []byte) error) *Writer {
	w := &Writer{
		free: make(chan []byte, buffers),
		full: make(chan []byte, buffers),
		done: make(chan error, 1),
	}
	for range buffers {
		w.free <- make([]byte, 0, bufferBytes)
	}
	go func() { w.done <- w.run(work) }()
	return w
}

func (w *Writer) run(work func(p []byte) error) (err error) {
	for p := range w.full {
		if err == nil {
			if err = work(p); err != nil {
				w.failed.Store(&err)
			}
		}
		w.free <- p[:0]
	}
	return err
}

// Write copies p, which may be used again at once. It returns the error of the
// work on earlier bytes, once there is one.
func (w *Writer) Write(p []byte) (n int, err error) {
	for n < len(p) {
		if err := w.err(); err != nil {
			return n, err
		}
		w.take()
		k := min(len(p)-n, cap(w.buf)-len(w.buf))
		w.buf = append(w.buf, p[n:n+k]...)
		n += k
		if len(w.buf) == cap(w.buf) {
			w.hand()
		}
	}
	return n, nil
}

// ReadFrom reads r to its end, straight into the buffers. Like [Writer.Write]
// it ends early with the error of the work.
func (w *Writer) ReadFrom(r io.Reader) (n int64, err error) {
	w.hand()
	for {
		if err := w.err(); err != nil {
			return n, err
		}
		w.take()
		k, err := r.Read(w.buf[:cap(w.buf)])
		n += int64(k)
		w.buf = w.buf[:k]
		w.hand()
		if err == io.EOF {
			return n, nil
		}
		if err != nil {
			return n, err
		}
	}
}

func (w *Writer) err() error {
	if err := w.failed.Load(); err != nil {
		return *err
	}
	return nil
}

// take waits for a free buffer, unless one is being filled.
func (w *Writer) take() {
	if w.buf == nil {
		w.buf = <-w.free
	}
}

// hand passes the bytes in the buffer on to the work.
func (w *Writer) hand() {
	if w.buf != nil {
		w.full <- w.buf
		w.buf = nil
	}
}

// Close waits until all bytes are worked on and returns the first error of the
// work. It must be called once.
func (w *Writer) Close() error {
	w.hand()
	close(w.full)
	return <-w.done
}
