// Package retention decides which snapshots to keep and why. It is pure: it
// reads nothing and deletes nothing.
//
// The rules add up: a snapshot stays if any rule keeps it, and each rule that does
// is a reason. Two things matter more than the rules:
//
//   - Only verified snapshots count. A suspect or damaged one, in short a bad one,
//     never takes the place of a verified one. While the newest of all is bad no
//     verified one is removed, because it is not known yet since when the content has
//     been bad.
//   - The time of a snapshot is the one in its id. A snapshot from the future,
//     which a wrong clock has made, is kept and takes no other's place.
package retention

import (
	"errors"
	"fmt"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// Policy says which snapshots to keep. A snapshot stays if any rule keeps it. A
// policy without a keep rule keeps all.
type Policy struct {
	// Last keeps that many newest snapshots. The other rules keep the newest snapshot
	// of each of that many hours, days and so on. Only periods with a snapshot count,
	// so a pause in the backups costs none. Weeks are those of ISO 8601. An hour that
	// is repeated when clocks are set back counts as two.
	Last, Hourly, Daily, Weekly, Monthly, Yearly int
	// Within keeps snapshots that began less than that before the newest verified
	// one. It is not measured from now, or all would be removed when backups fail.
	Within time.Duration
	// MinVerified is how many of the newest verified snapshots always stay; less
	// than 1 means 1.
	MinVerified int
	// MinAge is the age below which no snapshot is removed.
	MinAge time.Duration
	// MaxBytes is the maximum total size. The oldest snapshots are removed, even if a
	// keep rule matches, until the total fits or all that are left always stay. 0
	// sets no limit.
	MaxBytes int64
	// Location is where hours, days and weeks begin; nil means UTC.
	Location *time.Location
}

// Snapshot holds the facts about one snapshot that retention needs.
type Snapshot struct {
	ID          backup.SnapshotID
	State       backup.State // only verified ones count
	Pinned      string       // the reason, or ""
	StoredBytes int64
}

// Decision says whether to keep a snapshot, with the reasons.
type Decision struct {
	Snapshot
	Keep    bool
	Reasons []string
}

// HasRule reports whether there is a keep rule. Without one all snapshots are kept.
func (p Policy) HasRule() bool {
	return p.Last > 0 || p.Hourly > 0 || p.Daily > 0 || p.Weekly > 0 || p.Monthly > 0 || p.Yearly > 0 || p.Within > 0
}

// Check returns an error if the policy is impossible.
func (p Policy) Check() error {
	for _, c := range []struct {
		what  string
		value int64
	}{
		{"keep-last", int64(p.Last)}, {"keep-hourly", int64(p.Hourly)}, {"keep-daily", int64(p.Daily)},
		{"keep-weekly", int64(p.Weekly)}, {"keep-monthly", int64(p.Monthly)}, {"keep-yearly", int64(p.Yearly)},
		{"keep-within", int64(p.Within)},
		{"min-verified", int64(p.MinVerified)}, {"min-age", int64(p.MinAge)}, {"max-bytes", p.MaxBytes},
	} {
		if c.value < 0 {
			return fmt.Errorf("%s is negative", c.what)
		}
	}
	if p.MaxBytes > 0 && !p.HasRule() {
		return errors.New("max-bytes without a keep rule removes nothing: add one, such as keep-last")
	}
	return nil
}

// Apply decides about all snapshots of one cluster, in any order. It returns the
// decisions with the newest first.
func (p Policy) Apply(all []Snapshot, now time.Time) []Decision {
	c := newSelection(p, all, now)
	c.keepAlways()
	if !p.HasRule() {
		for _, s := range c.all {
			s.keep("no keep rule is given")
		}
		return c.decisions()
	}
	c.applyRules()
	c.limitBytes()
	return c.decisions()
}
