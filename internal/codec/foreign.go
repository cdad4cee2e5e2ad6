package codec

import (
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// maxForeignWindow bounds the memory for what another program has compressed: it is what the
// zstd tool allows by default, too.
const maxForeignWindow = 128 << 20

// NewZstdReader returns a reader of what any program has compressed with zstd: one frame or
// several, of any size. It holds at most one window in memory, of up to 128 MiB; a stream that
// needs more is a [*backup.RefusedError]. The caller closes it.
func NewZstdReader(src io.Reader) (io.ReadCloser, error) {
	zr, err := zstd.NewReader(src, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
		zstd.WithDecoderMaxWindow(maxForeignWindow), zstd.WithDecoderMaxMemory(1<<62))
	if err != nil {
		return nil, err
	}
	return &foreignReader{zr}, nil
}

type foreignReader struct{ *zstd.Decoder }

func (r *foreignReader) Read(p []byte) (int, error) {
	n, err := r.Decoder.Read(p)
	if errors.Is(err, zstd.ErrWindowSizeExceeded) || errors.Is(err, zstd.ErrWindowSizeTooSmall) {
		err = &backup.RefusedError{Reason: fmt.Sprintf("to unpack it takes a window of more than %d MiB of memory: "+
			"unpack it with zstd -d --long=31", maxForeignWindow>>20)}
	}
	return n, err
}

func (r *foreignReader) Close() error {
	r.Decoder.Close()
	return nil
}
