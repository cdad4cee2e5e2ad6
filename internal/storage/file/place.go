package file

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/disk"
	"github.com/etcd-backupd/backupd/internal/storage"
)

// MakeRoot makes the store's folder durably, if it is not there and its parent is. It refuses
// the places that [Store.CheckPlace] refuses.
func (s *Store) MakeRoot() error {
	abs, err := filepath.Abs(s.root)
	if err != nil {
		return err
	}
	_, missing := os.Lstat(abs)
	if missing != nil {
		if err := s.CheckPlace(); err != nil {
			return err
		}
	}
	parent, err := os.OpenRoot(filepath.Dir(abs))
	if missing == nil && errors.Is(err, fs.ErrPermission) {
		return nil // it was made by somebody else
	}
	if err != nil {
		return fmt.Errorf("make the repository's folder: %w", err)
	}
	defer parent.Close()
	if missing != nil {
		if err := (place{parent, s.disk}).makeFolder(".", filepath.Base(abs)); err != nil {
			return fmt.Errorf("make the repository's folder %s: %w", abs, err)
		}
	}
	// Also if it is there: an earlier call may have failed here.
	if err := s.disk.SyncDir(parent, "."); err != nil {
		return fmt.Errorf("sync folder %s: %w", filepath.Dir(abs), err)
	}
	return nil
}

var _ storage.Placed = (*Store)(nil)

// segment is the name of a file of etcd's WAL.
var segment = regexp.MustCompile(`^[0-9a-f]{16}-[0-9a-f]{16}\.wal$`)

// CheckPlace implements [storage.Placed]. It refuses a folder in the data or WAL directory
// of an etcd member, which a restore or a removal of the member moves as a whole, and one
// in another repository.
func (s *Store) CheckPlace() error {
	above, err := disk.Up(s.root)
	if err != nil {
		return err
	}
	root, _ := os.Stat(s.root) // what is not there is no other folder's
	for _, dir := range above {
		if at := memberIn(dir); at != "" {
			return &backup.RefusedError{Reason: fmt.Sprintf(
				"%s lies in the data directory of an etcd member (%s): give the repository a place of its own", s.root, at)}
		}
		if _, err := os.Lstat(filepath.Join(dir, backup.MarkerKey)); err != nil {
			continue
		}
		if here, err := os.Stat(dir); err == nil && (root == nil || !os.SameFile(root, here)) {
			return &backup.RefusedError{Reason: fmt.Sprintf("%s lies in another repository (%s)", s.root, dir)}
		}
	}
	return nil
}

// memberIn returns what shows that dir is a data or WAL directory, or nothing.
func memberIn(dir string) string {
	for _, part := range []string{"snap", "wal"} {
		at := filepath.Join(dir, "member", part)
		if info, err := os.Stat(at); err == nil && info.IsDir() {
			return at
		}
	}
	entries, _ := os.ReadDir(dir) // a folder far above may be another user's
	for _, e := range entries {
		if segment.MatchString(e.Name()) {
			return filepath.Join(dir, e.Name())
		}
	}
	return ""
}
