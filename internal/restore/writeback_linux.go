package restore

import (
	"os"

	"golang.org/x/sys/unix"
)

// beginWriteback asks the kernel to start writing a part of f to the disk. It is
// advice only: the fsync at the end decides.
func beginWriteback(f *os.File, off, n int64) {
	_ = unix.SyncFileRange(int(f.Fd()), off, n, unix.SYNC_FILE_RANGE_WRITE)
}
