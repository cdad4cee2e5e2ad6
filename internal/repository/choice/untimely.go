package choice

import (
	"slices"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/retention"
)

// Untimely returns those of the snapshots whose times contradict the order of their
// histories: a clock was wrong. Those from the future are not among them.
func Untimely(items []repository.Item, now time.Time) map[backup.SnapshotID]bool {
	order := slices.DeleteFunc(slices.Clone(items), func(i repository.Item) bool { return !i.Exists || i.Future(now) })
	slices.SortFunc(order, repository.CompareHistory)
	out := map[backup.SnapshotID]bool{}
	for from := 0; from < len(order); {
		to := from
		var times []time.Time
		for ; to < len(order) && order[to].Timeline == order[from].Timeline; to++ {
			times = append(times, order[to].ID.Time())
		}
		for n, fits := range retention.Consistent(times) {
			if !fits {
				out[order[from+n].ID] = true
			}
		}
		from = to
	}
	return out
}
