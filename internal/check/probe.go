package check

import (
	"context"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/etcd-backupd/backupd/internal/config"
	"github.com/etcd-backupd/backupd/internal/disk"
	"github.com/etcd-backupd/backupd/internal/storage"
)

// probe tries everything that a store must be able to do.
func probe(ctx context.Context, l *list, r *config.Repository, s storage.Store) {
	if loc := placeOf(r); loc.IsFolder() {
		defer removeFolders(loc.Path, disk.Existing(loc.Path))
	}
	for _, f := range storage.Probe(ctx, s) {
		l.add(f.Level, f.Hint, "%s: %s", f.Subject, f.Text)
	}
}

// removeFolders removes the empty folders that a probe leaves in a store of
// files, and the store's own folders down to the one that existed before: the
// daemon may run as another user, who should own them. Folders that are not
// empty stay.
func removeFolders(root, before string) {
	probes, _ := filepath.Glob(filepath.Join(root, storage.ProbePrefix+"*")) // the pattern is right
	for _, top := range probes {
		var folders []string
		_ = filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				folders = append(folders, path)
			}
			return nil
		})
		for _, folder := range slices.Backward(folders) { // those inside come later
			_ = os.Remove(folder)
		}
	}
	for ; root != before && os.Remove(root) == nil; root = filepath.Dir(root) {
	}
}

// foreign reports whether a store holds anything but the remains of a probe.
func foreign(ctx context.Context, s storage.Store) (bool, error) {
	for obj, err := range s.List(ctx, "", "") {
		if err != nil {
			return false, err
		}
		if !strings.HasPrefix(obj.Key, storage.ProbePrefix) {
			return true, nil
		}
	}
	return false, nil
}
