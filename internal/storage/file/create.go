package file

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/storage"
)

// sweepAge is the time since the last write after which a temporary file is
// forgotten, or an empty folder. A long upload goes on writing, so that its file stays
// younger.
const sweepAge = time.Hour

// Create implements [storage.Store]. It makes the folders it needs below the root, but
// never the root: where that is missing, a disk may not be mounted. Where it would take
// the reserve, the error wraps ENOSPC.
func (s *Store) Create(ctx context.Context, key string, r io.Reader) error {
	if err := s.create(ctx, key, r); err != nil {
		return fmt.Errorf("create %s: %w", key, explain(s.root, err))
	}
	return nil
}

func (s *Store) create(ctx context.Context, key string, r io.Reader) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	if err := checkKey(key); err != nil {
		return err
	}
	root, err := s.open()
	if err != nil {
		return err
	}
	defer root.Close()
	// Only link decides, but this check saves writing gigabytes.
	if info, err := root.Lstat(name(key)); err == nil {
		return exists(info)
	}
	dir := path.Dir(key)
	s.making.Lock()
	err = place{root, s.disk}.makeFolders(dir)
	s.making.Unlock()
	if err != nil {
		return err
	}
	s.sweep(root, dir, time.Now())

	r, small, err := peek(ctx, r)
	if err != nil {
		return err
	}
	check := func() error { return s.room.check(filepath.Join(s.root, name(dir)), small) }
	if err := check(); err != nil {
		return err
	}
	temp, want := name(path.Join(dir, tempName())), access{}
	if want, err = accessIn(root, dir); err != nil {
		return err
	}
	if err := s.write(root, temp, r, want, check); err != nil {
		return storage.AndLeft(err, remove(root, temp))
	}
	return s.publish(ctx, root, temp, key)
}

// write makes the file temp with everything from r and syncs it. A sync that
// failed is never tried again: the kernel reports a lost page once and then
// calls it clean. check looks at the free space.
func (s *Store) write(root *os.Root, temp string, r io.Reader, want access, check func() error) (err error) {
	f, err := s.disk.Create(root, temp)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := (place{root, s.disk}).own(temp, want); err != nil {
		return err
	}
	n, err := io.Copy(&careful{output: f, check: check}, r)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if info.Size() != n {
		return fmt.Errorf("wrote %d bytes, the file has %d: %w", n, info.Size(), io.ErrShortWrite)
	}
	return f.Sync()
}

// publish gives the written file its name.
func (s *Store) publish(ctx context.Context, root *os.Root, temp, key string) error {
	err := ctx.Err()
	if err == nil {
		err = s.disk.Link(root, temp, name(key))
	}
	if err != nil {
		if info, lerr := root.Lstat(name(key)); lerr == nil && errors.Is(err, fs.ErrExist) {
			err = exists(info)
		}
		return storage.AndLeft(linkHint(err), remove(root, temp))
	}
	// If this fails the object has two names until the next sweep. It is stored
	// all the same.
	_ = root.Remove(temp)

	// Sync all the way up: another writer may have made one of the folders a
	// moment ago, and not have synced its parent yet.
	for dir := path.Dir(key); ; dir = path.Dir(dir) {
		if err := s.disk.SyncDir(root, name(dir)); err != nil {
			// The name may or may not survive a crash, and an error must mean that
			// nothing is stored.
			return storage.AndLeft(fmt.Errorf("sync folder %s: %w", dir, err), remove(root, name(key)))
		}
		if dir == "." {
			return nil
		}
	}
}

func exists(info fs.FileInfo) error {
	if info.IsDir() {
		return fmt.Errorf("a folder has this name: %w", fs.ErrExist)
	}
	return fs.ErrExist
}

func linkHint(err error) error {
	if noHardLinks(err) {
		return backup.WithHint(err, "the file system must support hard links; FAT, exFAT and some FUSE mounts do not")
	}
	return err
}

func remove(root *os.Root, name string) error {
	if err := root.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// sweep deletes our own forgotten temporary files in dir, once in a Store's
// life. It ignores errors: they are no reason not to store.
func (s *Store) sweep(root *os.Root, dir string, now time.Time) {
	if _, done := s.swept.LoadOrStore(dir, struct{}{}); done {
		return
	}
	f, err := root.Open(name(dir))
	if err != nil {
		return
	}
	defer f.Close()
	entries, _ := f.ReadDir(-1)
	for _, e := range entries {
		if !e.Type().IsRegular() && !e.IsDir() || !tempPattern.MatchString(e.Name()) {
			continue
		}
		if info, err := e.Info(); err == nil && now.Sub(info.ModTime()) > sweepAge {
			_ = root.Remove(name(path.Join(dir, e.Name())))
		}
	}
}
