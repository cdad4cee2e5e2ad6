package snapshot

import (
	"os"

	"golang.org/x/sys/unix"
)

// allocate sets n bytes of the disk aside for f, where the file system can do
// that. Its size stays.
func allocate(f *os.File, n int64) {
	_ = unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, 0, n)
}
