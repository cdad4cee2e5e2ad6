package storage

import (
	"context"
	"errors"
	"io"
)

// ReaderAt returns a reader of any part of obj. Each ReadAt is one request, as long as nothing breaks
// off, and reads what it asks for and no more. All must show the same ETag: see [Download].
func ReaderAt(ctx context.Context, s Store, obj Object) io.ReaderAt {
	return &readerAt{ctx, s, obj, newPin(obj)}
}

type readerAt struct {
	ctx   context.Context // ReadAt has no parameter for it
	store Store
	obj   Object
	pin   *pin
}

// ReadAt implements [io.ReaderAt].
func (r *readerAt) ReadAt(p []byte, off int64) (int, error) {
	start, n, err := Range(r.obj.Size, off, int64(len(p)))
	if err != nil {
		return 0, err
	}
	var end error
	if n < int64(len(p)) {
		end = io.EOF
	}
	part := &resuming{ctx: r.ctx, store: r.store, pin: r.pin, off: start, end: start + n}
	k, err := io.ReadFull(part, p[:n])
	_ = part.Close() // the bytes are here, or reading has failed
	if err != nil && !errors.Is(err, io.EOF) {
		return k, err
	}
	return k, end
}
