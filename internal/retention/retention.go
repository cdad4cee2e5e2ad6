// Package retention decides which snapshots to keep and why. It is pure: it
// reads nothing and deletes nothing.
//
// The rules add up: a snapshot stays if any rule keeps it, and each rule that does
// is a reason. Five things matter more than the rules:
//
//   - The order is that of the history: timelines by their numbers, and in a timeline
//     the raft index, then the revision. Clocks play no part: the furthest snapshot is
//     the newest, although its clock may have been behind.
//   - The rules apply to each timeline by itself. While a later timeline is not
//     accepted, an older one is frozen: nothing of it is removed.
//   - Only verified snapshots count. A suspect or damaged one, in short a bad one,
//     never takes the place of a verified one, and neither does an unconfirmed one.
//     While the newest of a timeline, or of all, is bad no verified one before it is
//     removed, because it is not known yet since when the content has been bad.
//   - A trouble that lasts does not fill the store: of suspect and unconfirmed snapshots
//     with the same content the newest and the oldest stay, and of the suspect ones of a
//     member one a day.
//   - A snapshot from the future, which a wrong clock has made, is kept and takes no
//     other's place. The rules that need a time use one that does not contradict the
//     order of the history, whatever single clocks said.
package retention

import (
	"errors"
	"fmt"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// FreezeFor is how long a timeline that is not accepted freezes the older ones,
// unless a policy says otherwise.
const FreezeFor = 30 * 24 * time.Hour

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
	// MinVerified is how many of the newest verified snapshots of each timeline always
	// stay; less than 1 means 1.
	MinVerified int
	// MinAge is the age below which no snapshot is removed.
	MinAge time.Duration
	// MaxBytes is the maximum total size of all timelines. The oldest snapshots of the
	// oldest timeline are removed first, even if a keep rule matches, until the total
	// fits or all that are left always stay. 0 sets no limit.
	MaxBytes int64
	// FreezeFor is how long a timeline that is not accepted freezes the older ones,
	// from its first snapshot on; 0 means [FreezeFor].
	FreezeFor time.Duration
	// CountUnconfirmed says that unconfirmed snapshots count as verified ones do,
	// because their content is never compared.
	CountUnconfirmed bool
	// Location is where hours, days and weeks begin; nil means UTC.
	Location *time.Location
}

// Snapshot holds the facts about one snapshot that retention needs.
type Snapshot struct {
	ID       backup.SnapshotID
	Timeline string
	Index    uint64       // the last raft entry in it
	State    backup.State // only verified ones count
	// Doubtful says that it is unconfirmed for a reason that [Policy.CountUnconfirmed]
	// does not excuse: the member may have been behind.
	Doubtful bool
	// Source is the member that it is of, and Content its HashKV. They are zero if they are
	// not known, and needed of those only that do not count. Of one that came through a
	// proxy only the member is not known.
	Source      backup.MemberID
	Content     backup.HashKV
	Pinned      string // the reason, or ""
	StoredBytes int64
}

// Decision says whether to keep a snapshot, with the reasons.
type Decision struct {
	Snapshot
	Keep    bool
	Reasons []string
	// Floor reports whether it is one of the newest verified snapshots of its timeline,
	// which must be there before any other is removed.
	Floor bool
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
		{"freeze-for", int64(p.FreezeFor)},
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

// Apply decides about all snapshots of one cluster, in any order. open has the
// timelines that are not accepted. It returns the decisions with the newest first.
func (p Policy) Apply(all []Snapshot, open map[string]bool, now time.Time) []Decision {
	c := newSelection(p, all, now)
	c.freeze(open)
	c.keepAlways()
	if !p.HasRule() {
		for _, s := range c.all {
			s.keep("no keep rule is given")
		}
		return c.decisions()
	}
	for _, l := range c.lines {
		c.applyRules(l)
	}
	c.limitBytes()
	return c.decisions()
}
