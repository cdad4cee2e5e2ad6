package file

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"syscall"

	"github.com/etcd-backupd/backupd/internal/disk"
)

// steps are the durable steps of Create and Delete. They are an interface so that
// a test can record their order and let each of them fail.
type steps interface {
	Create(root *os.Root, name string) (output, error)
	Own(root *os.Root, name string, uid, gid int) error
	Link(root *os.Root, old, new string) error
	SyncDir(root *os.Root, name string) error
}

type output interface {
	io.WriteCloser
	Stat() (fs.FileInfo, error)
	Sync() error
}

type osDisk struct{}

// Create makes a file that did not exist. O_EXCL follows no symbolic link, and
// neither does os.Root.
func (osDisk) Create(root *os.Root, name string) (output, error) {
	return root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
}

// Own gives a file to a user and a group; -1 leaves one as it is.
func (osDisk) Own(root *os.Root, name string, uid, gid int) error { return root.Lchown(name, uid, gid) }

func (osDisk) Link(root *os.Root, old, new string) error { return root.Link(old, new) }

// SyncDir makes the names in a folder durable.
func (osDisk) SyncDir(root *os.Root, name string) error {
	dir, err := root.Open(name)
	if err != nil {
		return err
	}
	return errors.Join(disk.SyncFile(dir), dir.Close())
}

// notThere reports whether err means that no file has this name, because it is
// missing or because a part of its path is a file.
func notThere(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR)
}

func noHardLinks(err error) bool {
	return errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EMLINK) || errors.Is(err, errors.ErrUnsupported)
}
