package disk

import (
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// Kind is where the bytes of a file system lie.
type Kind int

// Kinds of file systems.
const (
	OnDisk Kind = iota // or not known
	InMemory
	OnNetwork
)

// FileSystem is what is known of a file system.
type FileSystem struct {
	Name   string // such as tmpfs; "" for an ordinary one
	Kind   Kind
	Device uint64 // two paths with the same device share their room
	Total  int64  // bytes, taken and free
	Free   int64  // bytes that this process may take
	Files  uint64 // how many there can be; 0 if the file system does not count them
	Left   uint64 // how many can still be made
}

// FileSystemOf returns the file system on which path lies. path must exist.
func FileSystemOf(path string) (FileSystem, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return FileSystem{}, fmt.Errorf("ask for the file system of %s: %w", path, err)
	}
	var device unix.Stat_t
	if err := unix.Stat(path, &device); err != nil {
		return FileSystem{}, fmt.Errorf("ask for the device of %s: %w", path, err)
	}
	name, kind := kindOf(&st)
	return FileSystem{
		Name: name, Kind: kind, Device: uint64(device.Dev),
		Total: int64(st.Blocks) * int64(st.Bsize),
		Free:  int64(st.Bavail) * int64(st.Bsize), // root could take more
		Files: st.Files, Left: st.Ffree,
	}, nil
}

// Shares reports whether two file systems share their room. Subvolumes and overlays have a
// device of their own, but the same numbers.
func (fs FileSystem) Shares(other FileSystem) bool {
	same := fs.Total == other.Total && fs.Free == other.Free && fs.Files == other.Files && fs.Left == other.Left
	return fs.Device == other.Device || same && fs.Total > 0
}

// RoomFor returns how many bytes must be free to receive a database of the given size:
// it grows while it is received.
func RoomFor(database int64) int64 { return database + database/10 + 16<<20 }

// CheckRoom refuses a folder that has no room to receive a database of the given
// size. The error wraps ENOSPC.
func CheckRoom(folder string, database int64) error {
	fs, err := FileSystemOf(folder)
	if err != nil {
		return err
	}
	want := RoomFor(database)
	if fs.Free < want {
		return fmt.Errorf("folder %s has %d bytes free, the database needs %d: %w", folder, fs.Free, want, unix.ENOSPC)
	}
	return nil
}

// SpaceOf returns the space that a file takes: its size, or the space that
// [Allocate] set aside for it if that is more.
func SpaceOf(info os.FileInfo) int64 {
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return max(info.Size(), st.Blocks*512)
	}
	return info.Size()
}
