//go:build machine

package undo_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/etcd-backupd/backupd/internal/restore"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// TestMachine_UndoKilledOnMountPoints is TestExecute_KilledAtEveryStep where the data directory, the
// WAL directory, or both are mount points.
func TestMachine_UndoKilledOnMountPoints(t *testing.T) {
	if !testserver.MayMount(t) {
		return
	}
	for name, of := range map[string]ground{
		"Data": {dataInside: true}, "DataBesideWAL": {wal: "log", dataInside: true}, "WAL": {wal: "log", walInside: true},
		"Both": {wal: "log", dataInside: true, walInside: true},
	} {
		t.Run(name, func(t *testing.T) {
			killAtEveryStep(t, func(t *testing.T) *ground {
				g := of
				g.root = t.TempDir()
				g.data = filepath.Join(g.root, "data")
				if g.wal != "" {
					g.wal = filepath.Join(g.root, g.wal)
				}
				for dir, inside := range map[string]bool{g.data: g.dataInside, g.wal: g.walInside} {
					if inside {
						testserver.MountOnto(t, dir)
						must(t, os.Mkdir(filepath.Join(dir, "lost+found"), 0o700))
					}
				}
				g.put(t, "", "new")
				g.put(t, restore.AsidePrefix+stamp, "old")
				return &g
			})
		})
	}
}
