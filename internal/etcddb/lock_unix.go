//go:build unix

package etcddb

import (
	"errors"
	"os"

	"github.com/etcd-backupd/backupd/internal/disk"
)

// lockShared refuses a database that a running etcd has open, because it may change
// during the read. On a file system without locks it refuses nothing.
func lockShared(file *os.File) error {
	if errors.Is(disk.TryLock(file, disk.Shared), disk.ErrInUse) {
		return errors.New("database is in use by another process, perhaps a running etcd")
	}
	return nil
}
