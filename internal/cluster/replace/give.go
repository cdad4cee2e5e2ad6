package replace

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/disk"
	"github.com/etcd-backupd/backupd/internal/publish"
)

// checkGive refuses an owner to whom that user cannot give a folder, before anything is changed.
func checkGive(f *folders, user Owner) error {
	o := f.owner
	if o == nil || user.UID == 0 || *o == user {
		return nil
	}
	return backup.WithHint(&backup.RefusedError{Override: "--chown", Reason: fmt.Sprintf(
		"only root can give %s to %d:%d", f, o.UID, o.GID)},
		"run as root, or give --chown %d:%d to keep the folders yours", user.UID, user.GID)
}

// give makes the folders of the new member, if they are missing, and gives them to its owner.
// What is in them is a server's that has been started, and stays as it is.
func give(f *folders) error {
	if f.owner == nil {
		return nil
	}
	places, err := f.places()
	if err != nil {
		return err
	}
	for _, p := range places {
		if err := f.owner.make(p.Dir); err != nil {
			return fmt.Errorf("make an empty folder for the member: %w", err)
		}
	}
	return nil
}

// make makes a folder, and gives it to the owner.
func (o *Owner) make(dir string) error {
	above := filepath.Dir(dir)
	if err := os.MkdirAll(above, 0o755); err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	st, err := os.Lstat(dir)
	if err != nil {
		return err
	}
	if own := st.Sys().(*syscall.Stat_t); int(own.Uid) == o.UID && int(own.Gid) == o.GID {
		return nil
	}
	if err := os.Lchown(dir, o.UID, o.GID); err != nil {
		return err
	}
	return disk.Sync(above)
}

// checkWALMount refuses a WAL directory that is a mount point: etcd makes a new WAL in a folder
// beside it, empties the directory, old data in it included, and fails to rename the folder there.
func checkWALMount(places []*publish.Folder) error {
	if len(places) < 2 || !places[1].Inside {
		return nil
	}
	dir := places[1].Dir
	return backup.WithHint(&backup.RefusedError{Reason: fmt.Sprintf(
		"%s is a mount point, or cannot be renamed: an empty etcd deletes what is in its WAL directory, and puts a new "+
			"one in its place, which fails there", dir)},
		"give the new member a folder in it, here by --wal-dir=%s and in its own settings: the old WAL stays where it is",
		filepath.Join(dir, "wal"))
}
