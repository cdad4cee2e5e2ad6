package schedule_test

import (
	"testing"
	"time"

	"github.com/etcd-backupd/backupd/internal/schedule"
)

// TestAside: jobs that run beside the others delay none of them, and each other.
func TestAside(t *testing.T) {
	bubble(t, "beside", func(t *testing.T) {
		b := newBench(t, 1)
		slow := func(name, line string) schedule.Job {
			j := b.job(name, line, 25*time.Minute)
			j.Aside, j.Group = true, "prod"
			return j
		}
		j := b.job("backup", "@every 10m", time.Minute)
		j.Group = "prod"
		b.Set([]schedule.Job{slow("a", "@every 10m"), slow("b", "@every 11m"), j})
		b.run()
		defer b.stop()
		pass(41 * time.Minute)
		b.want("10m0s a scheduled", "10m0s backup scheduled", "20m0s backup scheduled", "30m0s backup scheduled",
			"35m0s b scheduled", "40m0s backup scheduled")
	})
	bubble(t, "removed while it waits", func(t *testing.T) {
		b := newBench(t, 1)
		a, waits := b.job("a", "@every 10m", 25*time.Minute), b.job("b", "@every 11m", 0)
		a.Aside, waits.Aside = true, true
		b.Set([]schedule.Job{a, waits})
		b.run()
		defer b.stop()
		pass(12 * time.Minute)
		b.Set([]schedule.Job{a})
		pass(30 * time.Minute)
		b.want("10m0s a scheduled", "40m0s a scheduled")
	})
}
