package health_test

import (
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/health"
	"github.com/etcd-backupd/backupd/internal/repository"
)

// TestLoss: the newest of the lost snapshots are named.
func TestLoss(t *testing.T) {
	var lost []repository.Item
	if h := health.Loss(lost); h.Level != health.OK {
		t.Errorf("got %+v", h)
	}
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		lost = append(lost, repository.Item{ID: backup.SnapshotID(name)})
	}
	h := health.Loss(lost)
	if want := "snapshots are gone that backupd did not remove: e, d, c and 2 more"; h.Level != health.Failure ||
		h.Problem != want || !strings.Contains(h.Hint, "restart") {
		t.Errorf("got %+v", h)
	}
}
