package restore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/disk"
	"github.com/etcd-backupd/backupd/internal/publish"
)

// AsidePrefix comes between the name of a target and a time, in the names of
// folders that were moved aside.
const AsidePrefix = publish.AsidePrefix

// UndonePrefix is that of restored data that an undo has moved aside.
const UndonePrefix = publish.UndonePrefix

type folderKind int

const (
	dataFolder folderKind = iota
	walFolder
)

// usualWAL is where etcd has its WAL in a data directory.
var usualWAL = filepath.Join("member", "wal")

// place is a folder in the file system and its use.
type place struct {
	kind  folderKind
	dir   string
	wal   string // where the WAL is, below dir
	stays string // an entry of dir that is not moved: a mount point
}

// folder is one folder that a restore puts into place: a data directory, or a
// WAL directory of its own.
type folder struct {
	*publish.Folder
	kind  folderKind
	wal   string // where the WAL is, below the folder
	owner *Owner // nil when it does not exist
}

func newFolder(p place, mounts []disk.Mount) (*folder, error) {
	at := publish.Place{Dir: p.dir, Keep: p.stays}
	if p.kind == dataFolder {
		at.Heart = "member"
	}
	found, err := publish.NewFolder(at, mounts)
	if err != nil {
		return nil, unreadable(err)
	}
	f := &folder{Folder: found, kind: p.kind, wal: p.wal}
	if st, err := os.Stat(p.dir); err == nil {
		if sys, ok := st.Sys().(*syscall.Stat_t); ok {
			f.owner = &Owner{int(sys.Uid), int(sys.Gid)}
		}
	}
	return f, nil
}

// DataDirError is why a data directory cannot be taken: it is not empty, or cannot be read.
type DataDirError struct {
	Dir string
	Err error
}

// Error implements error.
func (e *DataDirError) Error() string { return e.Err.Error() }

// Unwrap returns the reason.
func (e *DataDirError) Unwrap() error { return e.Err }

// unreadable names the folder that cannot be listed as the flag does.
func unreadable(err error) error {
	var e *publish.UnreadableError
	if errors.As(err, &e) {
		return &DataDirError{e.Dir, fmt.Errorf("data-dir %q cannot be read: %w", e.Dir, e.Err)}
	}
	return err
}

func (f *folder) describe() string {
	switch {
	case len(f.Old) > 0:
		return ", the data there is moved aside"
	case f.Inside:
		return ", stays in place: contents are moved in"
	case f.Exists:
		return ", empty now"
	}
	return ""
}

// recheck reads the folders again: hours may have passed since they were checked.
func recheck(ctx context.Context, folders []*folder) error {
	for _, f := range folders {
		changed, err := f.Changed()
		if err != nil {
			return unreadable(err)
		}
		if changed {
			return &backup.RefusedError{Reason: fmt.Sprintf("%s has changed since this restore began", f.Dir)}
		}
		if err := checkUse(ctx, f.Dir, f.Inside); err != nil {
			return err
		}
	}
	return nil
}
