package storage

import (
	"context"
	"fmt"
	"io"
	"io/fs"
)

// ETag returns the [Object.ETag] of the object that r reads, where r was returned
// by a Store's Open, or nothing where the store does not know. Two readers with
// the same ETag read the same object.
func ETag(r io.Reader) string {
	if t, ok := r.(Tagger); ok {
		return t.ETag()
	}
	return ""
}

// Range fits the range asked of Open to the object's size: it returns the first
// byte to read and the number of bytes. A negative offset is an error that wraps
// fs.ErrInvalid.
func Range(size, offset, length int64) (start, n int64, err error) {
	if offset < 0 {
		return 0, 0, fmt.Errorf("offset %d: %w", offset, fs.ErrInvalid)
	}
	start = min(offset, size)
	n = size - start
	if length >= 0 {
		n = min(n, length)
	}
	return start, n, nil
}

// ReaderContext returns a reader of r that fails with the context's error once
// ctx has ended. It cannot interrupt a Read of r that blocks.
func ReaderContext(ctx context.Context, r io.Reader) io.Reader {
	return &contextReader{ctx, r}
}

type contextReader struct {
	ctx context.Context // Read has no parameter for it
	r   io.Reader
}

func (c *contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}

// ExactReader returns a reader of the next n bytes of r. If r ends before
// them, reading fails with io.ErrUnexpectedEOF.
func ExactReader(r io.Reader, n int64) io.Reader {
	return &exactReader{r, n}
}

type exactReader struct {
	r    io.Reader
	left int64
}

func (e *exactReader) Read(p []byte) (int, error) {
	if e.left == 0 {
		return 0, io.EOF
	}
	if int64(len(p)) > e.left {
		p = p[:e.left]
	}
	n, err := e.r.Read(p)
	e.left -= int64(n)
	if err == io.EOF && e.left > 0 {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// Counted returns r, which then reports how much of its total bytes was read. report may be nil.
func Counted(r io.ReadCloser, total int64, report func(done, total int64)) io.ReadCloser {
	if report == nil {
		return r
	}
	return &counted{ReadCloser: r, total: total, report: report}
}

type counted struct {
	io.ReadCloser
	done, total int64
	report      func(done, total int64)
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.ReadCloser.Read(p)
	c.done += int64(n)
	c.report(c.done, c.total)
	return n, err
}
