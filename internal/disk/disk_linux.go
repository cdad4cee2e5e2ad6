package disk

import (
	"os"

	"golang.org/x/sys/unix"
)

// Allocate sets n bytes of the disk aside for f, if the file system can do that.
// The size of f does not change.
func Allocate(f *os.File, n int64) {
	_ = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, n)
}

// BeginWriteback asks the kernel to start writing a part of f to the disk. It is
// advice only: the sync at the end decides.
func BeginWriteback(f *os.File, off, n int64) {
	_ = unix.SyncFileRange(int(f.Fd()), off, n, unix.SYNC_FILE_RANGE_WRITE)
}

// kindOf names a file system by its magic number.
func kindOf(st *unix.Statfs_t) (string, Kind) {
	switch uint32(st.Type) {
	case unix.TMPFS_MAGIC:
		return "tmpfs", InMemory
	case unix.RAMFS_MAGIC:
		return "ramfs", InMemory
	case unix.NFS_SUPER_MAGIC:
		return "NFS", OnNetwork
	case unix.CIFS_SUPER_MAGIC, unix.SMB_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC:
		return "SMB", OnNetwork
	case unix.CEPH_SUPER_MAGIC:
		return "CephFS", OnNetwork
	case unix.V9FS_MAGIC:
		return "9p", OnNetwork
	case unix.AFS_SUPER_MAGIC:
		return "AFS", OnNetwork
	case unix.FUSE_SUPER_MAGIC:
		return "FUSE", OnNetwork
	}
	return "", OnDisk
}
