// Package retention decides which snapshots to keep and why. It is pure: it
// reads nothing and deletes nothing.
//
// The rules add up: a snapshot stays if any rule keeps it, and each one says
// so. Two things matter more than the rules:
//
//   - Only verified snapshots count. One that is suspect never takes the place of
//     a verified one, and while the newest of all is suspect nothing verified
//     goes: nobody knows yet since when the content has been bad.
//   - Time is what ids tell. A snapshot begun in the future, by a clock that was
//     wrong, is kept and takes nobody's place either.
package retention

import (
	"errors"
	"fmt"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// Policy says what to keep. Rules add up: a snapshot stays if any keeps it. A
// policy whose keep rules are all zero keeps everything.
type Policy struct {
	// Last keeps that many newest snapshots. The others keep the newest snapshot
	// of each of that many hours, days and so on: of those that have one, so that a
	// pause in the backups uses nothing up. Weeks are those of ISO 8601. An
	// hour that a change of clocks repeats is two.
	Last, Hourly, Daily, Weekly, Monthly, Yearly int
	// Within keeps what was begun less than that before the newest verified
	// snapshot. It is not measured from now: else all would go once backups fail.
	Within time.Duration
	// MinVerified newest verified snapshots always stay; less than 1 means 1.
	MinVerified int
	// MinAge is how old a snapshot must be to go.
	MinAge time.Duration
	// MaxBytes of stored data: what the rules keep goes, the oldest first, until it
	// is met, or only such is left as always stays. 0 is no limit.
	MaxBytes int64
	// Location is where hours, days and weeks begin; nil means UTC.
	Location *time.Location
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

// HasRule reports whether there is a keep rule. Without one all is kept.
func (p Policy) HasRule() bool {
	return p.Last > 0 || p.Hourly > 0 || p.Daily > 0 || p.Weekly > 0 || p.Monthly > 0 || p.Yearly > 0 || p.Within > 0
}

// Check reports what in the policy cannot be, or nil.
func (p Policy) Check() error {
	for _, c := range []struct {
		what  string
		value int64
	}{
		{"keep-last", int64(p.Last)}, {"keep-hourly", int64(p.Hourly)}, {"keep-daily", int64(p.Daily)}, {"keep-weekly", int64(p.Weekly)},
		{"keep-monthly", int64(p.Monthly)}, {"keep-yearly", int64(p.Yearly)}, {"keep-within", int64(p.Within)},
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

// Apply decides about all snapshots of one cluster, whose order does not matter.
// The decisions come the newest first.
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
