package restore

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"github.com/etcd-backupd/backupd/internal/disk"
)

// Try does everything that [Work.Execute] could fail by, and nothing that stays: it reads
// the beginning of the source, and makes and removes a file where each folder will be
// built, for its owner.
func (w *Work) Try(ctx context.Context, src Source) error {
	if err := w.checkSource(src.About()); err != nil {
		return err
	}
	if err := src.Try(ctx); err != nil {
		return err
	}
	for _, t := range w.Targets {
		for _, f := range t.folders() {
			owner := w.site.ownerOf(t, f)
			if err := f.Try(func(dir string) error { return tryFile(dir, owner) }); err != nil {
				return fmt.Errorf("restore %s: %w", t.Member.Name, err)
			}
		}
	}
	return nil
}

// tryFile makes a file durably in a new folder, and gives both to the owner.
func tryFile(dir string, owner Owner) error {
	path := filepath.Join(dir, "try")
	if err := disk.WriteFile(path, []byte("try")); err != nil {
		return err
	}
	if err := disk.Seal(dir, owner.UID, owner.GID, disk.Sync); err != nil {
		return err
	}
	return os.Remove(path)
}
