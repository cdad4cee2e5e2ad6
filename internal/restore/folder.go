package restore

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/publish"
)

// AsidePrefix comes between the name of a target and a time, in the names of
// folders that were moved aside.
const AsidePrefix = publish.AsidePrefix

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

func newFolder(p place, mounts []string) (*folder, error) {
	at := publish.Place{Dir: p.dir, Keep: p.stays}
	if p.kind == dataFolder {
		at.Heart = "member"
	}
	found, err := publish.NewFolder(at, mounts)
	if err != nil {
		return nil, asEtcdutl(err)
	}
	f := &folder{Folder: found, kind: p.kind, wal: p.wal}
	if st, err := os.Stat(p.dir); err == nil {
		if sys, ok := st.Sys().(*syscall.Stat_t); ok {
			f.owner = &Owner{int(sys.Uid), int(sys.Gid)}
		}
	}
	return f, nil
}

// asEtcdutl puts the error of a folder that cannot be listed into etcdutl's words.
func asEtcdutl(err error) error {
	var e *publish.UnreadableError
	if errors.As(err, &e) {
		return fmt.Errorf("data-dir %q not empty or could not be read: %w", e.Dir, e.Err)
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
func recheck(folders []*folder) error {
	for _, f := range folders {
		changed, err := f.Changed()
		if err != nil {
			return asEtcdutl(err)
		}
		if changed {
			return &backup.RefusedError{Reason: fmt.Sprintf("%s has changed since this restore began", f.Dir)}
		}
		if err := f.checkLocks(); err != nil {
			return err
		}
	}
	return nil
}
