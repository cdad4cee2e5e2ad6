package check

import "golang.org/x/sys/unix"

// kindOf names a file system by its magic number.
func kindOf(st *unix.Statfs_t) (string, fsKind) {
	switch uint32(st.Type) {
	case unix.TMPFS_MAGIC:
		return "tmpfs", inMemory
	case unix.RAMFS_MAGIC:
		return "ramfs", inMemory
	case unix.NFS_SUPER_MAGIC:
		return "NFS", onNetwork
	case unix.CIFS_SUPER_MAGIC, unix.SMB_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC:
		return "SMB", onNetwork
	case unix.CEPH_SUPER_MAGIC:
		return "CephFS", onNetwork
	case unix.V9FS_MAGIC:
		return "9p", onNetwork
	case unix.AFS_SUPER_MAGIC:
		return "AFS", onNetwork
	case unix.FUSE_SUPER_MAGIC:
		return "FUSE", onNetwork
	}
	return "", onDisk
}
