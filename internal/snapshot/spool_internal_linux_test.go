package snapshot

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// TestAllocate: what is set aside is seen by whoever counts, and by no reader.
func TestAllocate(t *testing.T) {
	fd, err := unix.MemfdCreate("spool", 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), "spool")
	defer f.Close()
	allocate(f, 1<<20)
	info, err := f.Stat()
	if err != nil || info.Size() != 0 || spaceOf(info) < 1<<20 {
		t.Errorf("size %d, space %d, %v", info.Size(), spaceOf(info), err)
	}
}
