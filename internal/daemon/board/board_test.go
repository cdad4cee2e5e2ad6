package board_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/daemon/board"
	"github.com/etcd-backupd/backupd/internal/server"
)

// TestDurations: a stage lasts from its first report to its last one. One that has told of
// its begin alone goes on.
func TestDurations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := board.New().Begin("backup", server.Key{Repository: "main", Cluster: "prod"}, "manual")
		time.Sleep(time.Second)
		j.Progress(backup.StageReceive, 0, 10)
		time.Sleep(time.Minute)
		j.Progress(backup.StageReceive, 10, 10)
		j.Progress(backup.StageInspect, 0, 10)
		time.Sleep(time.Hour)
		want := map[string]time.Duration{"receive": time.Minute, "inspect": time.Hour, "total": time.Hour + 61*time.Second}
		if diff := cmp.Diff(want, j.Durations()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}
