// Package room asks the file systems of a restore whether they have room for it.
package room

import (
	"fmt"
	"math"

	"golang.org/x/sys/unix"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/disk"
)

// Need is what one folder takes.
type Need struct {
	Root  string // on the file system that must have it
	Bytes int64
}

// filesOf is how many files and folders at most are made for one folder, those that are
// there for a moment only included.
const filesOf = 32

// Check checks each file system for the space of all folders in it, and for the inodes. It
// returns an error that is ENOSPC.
func Check(needs []Need) error {
	type device struct {
		root        string
		free, need  int64
		left, files uint64 // how many files can be made, and how many will be
	}
	devices := map[uint64]*device{}
	for _, n := range needs {
		fs, err := disk.FileSystemOf(n.Root)
		if err != nil {
			return err
		}
		if devices[fs.Device] == nil {
			devices[fs.Device] = &device{root: n.Root, free: fs.Free, left: fs.Left}
			if fs.Files == 0 {
				devices[fs.Device].left = math.MaxUint64
			}
		}
		devices[fs.Device].need += n.Bytes
		devices[fs.Device].files += filesOf
	}
	for _, d := range devices {
		if d.free < d.need {
			return fmt.Errorf("the file system of %s has %d bytes free, the restore needs %d: %w",
				d.root, d.free, d.need, unix.ENOSPC)
		}
		if d.left < d.files {
			return backup.WithHint(fmt.Errorf("the file system of %s has %d inodes left, the restore needs %d: %w",
				d.root, d.left, d.files, unix.ENOSPC), "remove small files there: 'df -i' shows the inodes")
		}
	}
	return nil
}
