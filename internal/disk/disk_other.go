//go:build !linux

package disk

import (
	"os"

	"golang.org/x/sys/unix"
)

// Allocate does nothing: only Linux can set bytes aside without changing the
// size of the file.
func Allocate(*os.File, int64) {}

// BeginWriteback does nothing.
func BeginWriteback(*os.File, int64, int64) {}

// kindOf knows no file systems here: each counts as a disk.
func kindOf(*unix.Statfs_t) (string, Kind) { return "", OnDisk }
