package disk

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
)

// CopySparse copies a file to a new one and leaves holes where there are only zeros: most of a
// WAL is room that a server has taken in advance. Progress gets the bytes of each step. It ends
// with the cause of ctx. The new file is not synced.
func CopySparse(ctx context.Context, from *os.File, path string, progress func(n int64)) error {
	to, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	buf, zeros := make([]byte, 1<<20), make([]byte, 1<<20)
	at := int64(0)
	for err == nil {
		if ctx.Err() != nil {
			err = context.Cause(ctx)
			break
		}
		var n int
		n, err = from.ReadAt(buf, at)
		if !bytes.Equal(buf[:n], zeros[:n]) {
			if _, werr := to.WriteAt(buf[:n], at); werr != nil {
				err = werr
			}
		}
		at += int64(n)
		progress(int64(n))
	}
	if err == io.EOF {
		err = to.Truncate(at)
	}
	return errors.Join(err, to.Close())
}
