//go:build unix && !linux

package inuse

import (
	"os"

	"github.com/etcd-backupd/backupd/internal/disk"
)

// holdSegment takes a lock that goes with others like it, and not with that of etcd, which
// locks its segments by flock(2) here.
func holdSegment(f *os.File) error { return disk.TryLock(f, disk.Shared) }

// holder finds no process here.
func holder(string) string { return "" }
