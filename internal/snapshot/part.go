package snapshot

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/etcd-backupd/backupd/internal/disk"
)

// newPart makes the temporary file in dir for a snapshot named base, which may be as long
// as a name can be, and locks it. It removes those of processes that were killed. A file
// system without locks keeps them: whether their process lives cannot be told.
func newPart(dir, base string, log *slog.Logger) (*os.File, error) {
	const enough = 200
	before := "." + base[:min(len(base), enough)] + "."
	removeDeadParts(dir, before, log)
	for {
		f, err := os.CreateTemp(dir, before+"*.part") // 0600
		if err != nil {
			return nil, fmt.Errorf("make temporary file: %w", err)
		}
		// Another process may have found it before it was locked, and removed it.
		if err := disk.TryLock(f, disk.Exclusive); !errors.Is(err, disk.ErrGone) && !errors.Is(err, disk.ErrInUse) {
			return f, nil
		}
		_ = f.Close() // nothing was written
	}
}

// removeDeadParts removes the temporary files that no process has locked.
func removeDeadParts(dir, before string, log *slog.Logger) {
	found, err := os.ReadDir(dir)
	if err != nil {
		return // making a file there will say it better
	}
	for _, e := range found {
		random, ok := strings.CutPrefix(e.Name(), before)
		random, part := strings.CutSuffix(random, ".part")
		if !ok || !part || random == "" || strings.Trim(random, "0123456789") != "" {
			continue // it is not ours
		}
		path := filepath.Join(dir, e.Name())
		f, err := disk.OpenRegular(path, os.O_RDWR)
		if err != nil {
			continue // somebody else's
		}
		if err = disk.TryLock(f, disk.Exclusive); err == nil {
			err = os.Remove(path) // before the lock ends
			log.Info("removed what a killed save has left", "path", path, "err", err)
		}
		_ = f.Close() // nothing was written
	}
}
