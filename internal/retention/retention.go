// Package retention decides which snapshots to keep and why. It is pure: it
// reads nothing and deletes nothing.
package retention

import (
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// Policy says what to keep. Rules add up: a snapshot stays if any keeps it.
type Policy struct {
	Last, Hourly, Daily, Weekly, Monthly, Yearly int
	Within                                       time.Duration
	// MinVerified newest verified snapshots always stay.
	MinVerified int
	MinAge      time.Duration
	MaxBytes    int64 // of stored data; 0 is no limit
	Location    *time.Location
}

// Snapshot is what retention knows of one.
type Snapshot struct {
	ID          backup.SnapshotID
	Suspect     bool   // suspect, or its manifest cannot be read
	Pinned      string // the reason, or ""
	StoredBytes int64
}

// Decision is what becomes of one snapshot, with the reasons.
type Decision struct {
	Snapshot
	Keep    bool
	Reasons []string
}
