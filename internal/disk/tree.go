package disk

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// Copy copies a file to a new one, and says how far it is. It does not sync it.
func Copy(ctx context.Context, from, to string, progress func(done int64)) (err error) {
	src, err := os.Open(from)
	if err != nil {
		return err
	}
	defer src.Close() // only read from
	dst, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dst.Close()) }()
	for off := int64(0); ; {
		n, err := io.CopyN(dst, src, 64<<20) // the kernel copies, or clones
		off += n
		progress(off)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
}

// Seal gives a whole tree to its owner alone and makes it durable: files first, then
// the folders that name them. sync is [Sync]; a test sees the order by it.
func Seal(root string, uid, gid int, sync func(path string) error) error {
	var dirs []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if uid != os.Geteuid() || gid != os.Getegid() {
			if err := os.Lchown(path, uid, gid); err != nil {
				return fmt.Errorf("give to %d:%d: %w", uid, gid, err)
			}
		}
		if d.IsDir() {
			dirs = append(dirs, path)
			return nil
		}
		// The umask of the process decides in etcd's code who may write its files.
		if info, err := d.Info(); err != nil {
			return err
		} else if err := os.Chmod(path, info.Mode().Perm()&0o700); err != nil {
			return err
		}
		return sync(path)
	})
	if err != nil {
		return err
	}
	for i := len(dirs) - 1; i >= 0; i-- {
		if err := sync(dirs[i]); err != nil {
			return err
		}
	}
	return nil
}
