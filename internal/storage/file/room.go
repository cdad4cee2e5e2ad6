package file

import (
	"bytes"
	"context"
	"fmt"
	"io"

	"golang.org/x/sys/unix"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/disk"
	"github.com/etcd-backupd/backupd/internal/storage"
)

const (
	// lookEvery is how many bytes are written between two looks at the free space.
	lookEvery = 4 << 20
	// smallObject is more than a manifest, a mark or a record has.
	smallObject = 64 << 10
	// smallShare is the part of the reserve that small objects leave: without a manifest, data
	// that is stored is of no use, and without a record nothing can be removed.
	smallShare = 10
)

// peek reads the beginning of r, and reports whether that is all and small. The reader that
// it returns has everything.
func peek(ctx context.Context, r io.Reader) (all io.Reader, small bool, err error) {
	r = storage.ReaderContext(ctx, r)
	head, err := io.ReadAll(io.LimitReader(r, smallObject))
	if err != nil {
		return nil, false, err
	}
	if len(head) < smallObject {
		return bytes.NewReader(head), true, nil
	}
	return io.MultiReader(bytes.NewReader(head), r), false, nil
}

// room is what a store leaves to others.
type room struct {
	reserve disk.RepositoryReserve
	space   func(folder string) (disk.FileSystem, error)
}

// check returns an error that wraps ENOSPC if less is free in a folder than must stay free.
// A file system that does not say how large it is has no reserve.
func (r room) check(folder string, small bool) error {
	fs, err := r.space(folder)
	if err != nil {
		return err
	}
	keep := r.reserve.Of(fs)
	if small {
		keep /= smallShare
	}
	if fs.Total == 0 || fs.Free >= keep {
		return nil
	}
	return backup.WithHint(
		fmt.Errorf("%s are free, and %s must stay free on the file system of the repository: %w",
			disk.Size(fs.Free), disk.Size(keep), unix.ENOSPC),
		"remove old snapshots or other files there, or move the repository to another file system; "+
			"the repository's file.min-free (--file-min-free) is what must stay free")
}

// careful looks at the free space while it writes.
type careful struct {
	output
	check   func() error
	written int // since the last look
}

func (c *careful) Write(p []byte) (int, error) {
	if c.written >= lookEvery {
		if err := c.check(); err != nil {
			return 0, err
		}
		c.written = 0
	}
	n, err := c.output.Write(p)
	c.written += n
	return n, err
}
