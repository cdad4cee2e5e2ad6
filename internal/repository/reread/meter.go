package reread

import (
	"sync"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// Meter counts the stored bytes that verifications read in this process on one day. What a
// verification that failed has read counts as well, and leaves no mark. The zero value is ready,
// and its methods may be called concurrently.
type Meter struct {
	mu    sync.Mutex // guards what follows
	day   time.Time
	bytes int64
}

// Count returns a progress that also counts what one verification reads. done adds that to the day.
func (m *Meter) Count(p backup.Progress, now func() time.Time) (counted backup.Progress, done func()) {
	var mu sync.Mutex // stored bytes are read by several goroutines
	var sum, last int64
	counted = func(stage backup.Stage, n, total int64) {
		if stage == backup.StageVerify {
			mu.Lock()
			if n < last { // they are read once more
				last = 0
			}
			sum, last = sum+n-last, n
			mu.Unlock()
		}
		if p != nil {
			p(stage, n, total)
		}
	}
	return counted, func() {
		mu.Lock()
		defer mu.Unlock()
		m.mu.Lock()
		defer m.mu.Unlock()
		if day := Day(now()); !day.Equal(m.day) {
			m.day, m.bytes = day, 0
		}
		m.bytes += sum
	}
}

// On returns how many bytes were read on the day of now.
func (m *Meter) On(now time.Time) int64 {
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.day.Equal(Day(now)) {
		return 0
	}
	return m.bytes
}
