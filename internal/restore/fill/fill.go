// Package fill writes a database into its file as fast as it comes.
package fill

import (
	"context"
	"fmt"
	"io"
	"os"

	"go.etcd.io/etcd/client/pkg/v3/fileutil"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/behind"
	"github.com/etcd-backupd/backupd/internal/disk"
)

// flushEvery is the number of bytes after which the kernel is asked to start
// writing them to the disk, so that the final fsync does not wait for all of
// them.
const flushEvery = 32 << 20

// File writes the first size bytes of stream to f, which is new and empty. It also
// reads the trailer bytes that must follow, because the reader may verify at its
// end. It allocates the space first, and writes while it reads on. A stream that is an
// [io.WriterTo] works ahead by itself, and its bytes are written without a copy.
func File(ctx context.Context, f *os.File, stream io.Reader, size, trailer int64) error {
	if err := fileutil.Preallocate(f, size, true); err != nil {
		return fmt.Errorf("allocate %d bytes for the database: %w", size, err)
	}
	head := &headWriter{f: f, size: size}
	n, err := pass(ctx, stream, head.write)
	if err != nil {
		return err
	}
	if n != size+trailer {
		return backup.Corruptf("the source ended after %d bytes of %d", n, size+trailer)
	}
	return nil
}

// pass hands all bytes of stream to write and returns how many there were.
func pass(ctx context.Context, stream io.Reader, write func(p []byte) error) (n int64, err error) {
	if ahead, ok := stream.(io.WriterTo); ok {
		return ahead.WriteTo(writer(func(p []byte) error {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return write(p)
		}))
	}
	w := behind.NewWriter(write)
	n, err = w.ReadFrom(Cancellable(ctx, stream))
	if closed := w.Close(); err == nil {
		err = closed
	}
	return n, err
}

type writer func(p []byte) error

func (w writer) Write(p []byte) (int, error) {
	if err := w(p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// headWriter writes the first size bytes to a file and drops the rest.
type headWriter struct {
	f                  *os.File
	size, off, flushed int64
}

func (h *headWriter) write(p []byte) error {
	p = p[:min(int64(len(p)), h.size-h.off)]
	if _, err := h.f.WriteAt(p, h.off); err != nil {
		return fmt.Errorf("write database: %w", err)
	}
	h.off += int64(len(p))
	if h.off-h.flushed >= flushEvery {
		disk.BeginWriteback(h.f, h.flushed, h.off-h.flushed)
		h.flushed = h.off
	}
	return nil
}

// Cancellable returns a reader of r that fails once ctx has ended.
func Cancellable(ctx context.Context, r io.Reader) io.Reader { return cancellable{ctx, r} }

type cancellable struct {
	ctx context.Context
	r   io.Reader
}

func (c cancellable) Read(p []byte) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	return c.r.Read(p)
}
