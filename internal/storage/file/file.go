// Package file is a Store in a folder of a local or network file system. An
// object is a regular file named by its key; everything else, and files with
// names that no key can have, belong to others and are left alone.
//
// An object is written under a temporary name in its own folder, synced, and
// published by link(2), which never replaces a file. The folders up to the
// store's root are synced after it. A crash at any moment leaves the object
// whole or absent, and at worst a temporary file, which is never listed and is
// deleted once it is an hour old by the next Create in that folder.
//
// Files and folders get the owner of the folder that they are made in, as far as that is
// allowed, and are for that user alone: 0600 and 0700. Where the folder's group may write,
// the group is meant to share the store, and gets the same rights.
//
// A reserve stays free on the file system: an etcd may share it, and ends when it is full.
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
	"regexp"
	"strconv"
	"strings"
	"sync"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/disk"
	"github.com/etcd-backupd/backupd/internal/storage"
)

// Store implements [storage.Store].
type Store struct {
	root  string
	disk  steps
	swept sync.Map // folder -> struct{}: temporary files were looked for
	room  room

	making sync.Mutex // held while folders are made
}

var _ storage.Store = (*Store)(nil)

// New returns the store in the folder root. It touches nothing: while there is no such
// folder everything fails with fs.ErrNotExist, see [Store.MakeRoot]. The default reserve
// stays free on its file system.
func New(root string) *Store { return NewWithReserve(root, disk.RepositoryReserve{}) }

// NewWithReserve is [New] with another reserve.
func NewWithReserve(root string, reserve disk.RepositoryReserve) *Store {
	return &Store{root: root, disk: osDisk{}, room: room{reserve, disk.FileSystemOf}}
}

// open opens the store's folder. Every name is resolved below it by os.Root,
// so neither a key nor a symbolic link can lead out.
func (s *Store) open() (*os.Root, error) {
	root, err := os.OpenRoot(s.root)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("folder %s does not exist: %w", s.root, fs.ErrNotExist)
	}
	return root, err
}

// Open implements [storage.Store].
func (s *Store) Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	r, err := s.openRange(ctx, key, offset, length)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", key, explain(s.root, err))
	}
	return r, nil
}

func (s *Store) openRange(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	root, _, err := s.lookup(ctx, key)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	f, err := root.Open(name(key))
	if err != nil {
		return nil, err
	}
	// The open file may be another one than lookup has seen.
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fs.ErrNotExist
	}
	var start, n int64
	if err == nil {
		start, n, err = storage.Range(info.Size(), offset, length)
	}
	if err == nil {
		_, err = f.Seek(start, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &reader{storage.ExactReader(storage.ReaderContext(ctx, f), n), f, etag(info)}, nil
}

// Stat implements [storage.Store].
func (s *Store) Stat(ctx context.Context, key string) (storage.Object, error) {
	root, info, err := s.lookup(ctx, key)
	if err != nil {
		return storage.Object{}, fmt.Errorf("stat %s: %w", key, explain(s.root, err))
	}
	return object(key, info), root.Close()
}

// lookup finds the regular file of key before anything is opened: opening a pipe
// could block for ever.
func (s *Store) lookup(ctx context.Context, key string) (*os.Root, fs.FileInfo, error) {
	if err := ctx.Err(); err != nil {
		return nil, nil, err
	}
	if err := checkKey(key); err != nil {
		return nil, nil, err
	}
	root, err := s.open()
	if err != nil {
		return nil, nil, err
	}
	info, err := root.Lstat(name(key))
	if err != nil && notThere(err) || err == nil && !info.Mode().IsRegular() {
		err = fs.ErrNotExist
	}
	if err != nil {
		return nil, nil, errors.Join(err, root.Close())
	}
	return root, info, nil
}

// Delete implements [storage.Store]. Folders stay. The folder is synced also where the file
// is gone already: an earlier Delete may have removed it, and have failed to sync.
func (s *Store) Delete(ctx context.Context, key string) error {
	root, _, err := s.lookup(ctx, key)
	gone := errors.Is(err, fs.ErrNotExist) && s.exists()
	if gone { // or what has this name is not ours
		root, err = s.open()
	}
	if err == nil {
		defer root.Close()
		if !gone {
			err = root.Remove(name(key))
		}
		if err == nil || notThere(err) {
			err = s.disk.SyncDir(root, name(path.Dir(key)))
		}
		if notThere(err) { // nor is the folder
			err = nil
		}
	}
	if err != nil {
		return fmt.Errorf("delete %s: %w", key, explain(s.root, err))
	}
	return nil
}

func (s *Store) exists() bool {
	_, err := os.Stat(s.root)
	return err == nil
}

// tempPattern is the shape of our own temporary names, and of nothing else.
var tempPattern = regexp.MustCompile(`^\.backupd-[a-z2-7]{16}\.tmp$`)

func tempName() string { return ".backupd-" + backup.RandomName(16) + ".tmp" }

func checkKey(key string) error {
	if err := storage.CheckKey(key); err != nil {
		return err
	}
	for segment := range strings.SplitSeq(key, "/") {
		if tempPattern.MatchString(segment) {
			return fmt.Errorf("key %q: has the shape of a temporary file: %w", key, fs.ErrInvalid)
		}
	}
	return nil
}

// name is the file of key below the root.
func name(key string) string { return filepath.FromSlash(key) }

func object(key string, info fs.FileInfo) storage.Object {
	return storage.Object{Key: key, Size: info.Size(), ModTime: info.ModTime(), ETag: etag(info)}
}

// etag identifies the content as well as a file system can: published files do not
// change, and a file that was deleted and created again has another time.
func etag(info fs.FileInfo) string {
	return strconv.FormatInt(info.Size(), 36) + "-" + strconv.FormatInt(info.ModTime().UnixNano(), 36)
}

type reader struct {
	io.Reader
	f    *os.File
	etag string
}

func (r *reader) ETag() string { return r.etag }
func (r *reader) Close() error { return r.f.Close() }
