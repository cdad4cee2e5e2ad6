// Package reread decides which stored snapshot is verified next, so that in time each of them
// is read again. It knows what was verified from the marks in the repository alone. A [Meter] knows
// what was read in vain.
package reread

import (
	"slices"
	"strings"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/repository"
)

// Policy says how the snapshots of one cluster are verified by a schedule.
type Policy struct {
	// Longest is the longest time between two slots of the schedule. Zero means that
	// there is none.
	Longest time.Duration
	// BytesPerDay is how many stored bytes are read in a day of UTC. Zero sets no limit.
	BytesPerDay int64
	// Decrypts says that encrypted snapshots can be decoded. Otherwise only their stored
	// bytes can be verified, and that counts.
	Decrypts bool
}

// grace is how much longer than two intervals the time between two verifications may be.
const grace = time.Minute

// Kind is the kind of mark that a verification of the snapshot leaves at best.
func (p Policy) Kind(i *repository.Item) backup.MarkKind {
	if !p.Decrypts && strings.Contains(i.Encoding(), "age") {
		return backup.MarkReadBack
	}
	return backup.MarkVerified
}

// At returns when the snapshot was last verified as deeply as it can be, or found to be
// damaged; zero: never. Marks from the future do not count: a clock was wrong.
func (p Policy) At(i *repository.Item, now time.Time) time.Time {
	at := timely(i.MarkedAt(backup.MarkDamaged), now)
	for _, k := range i.Verifications {
		if k.Mark == backup.MarkVerified || k.Mark == p.Kind(i) {
			at = later(at, timely(k.Time(), now))
		}
	}
	return at
}

// Last returns when any of the snapshots was last verified; zero: never.
func (p Policy) Last(items []repository.Item, now time.Time) (last time.Time) {
	for n := range items {
		last = later(last, p.At(&items[n], now))
	}
	return last
}

// Deadline returns the time from which on verifications are missing: two intervals after the
// last one or, if there was none, after the oldest snapshot was taken. last is one that the
// marks may not tell; it may be zero. The deadline is zero if there is no schedule or nothing
// to verify.
func (p Policy) Deadline(items []repository.Item, last, now time.Time) time.Time {
	items = candidates(items)
	if p.Longest <= 0 || len(items) == 0 {
		return time.Time{}
	}
	last = later(timely(last, now), p.Last(items, now))
	if last.IsZero() {
		last = taken(&items[0], now)
		for n := range items {
			if t := taken(&items[n], now); last.IsZero() || !t.IsZero() && t.Before(last) {
				last = t
			}
		}
	}
	if last.IsZero() {
		return last // all of them are from the future
	}
	limit := 2*p.Longest + grace
	if p.BytesPerDay > 0 {
		limit += 24 * time.Hour // the first slot of each day may read
	}
	return last.Add(limit)
}

// Affords reports whether a snapshot may be read on a day on which so many bytes were read
// already. The first one of a day may have any size: otherwise a large one would never be
// read.
func (p Policy) Affords(i *repository.Item, used int64) bool {
	return p.BytesPerDay <= 0 || used == 0 || used+i.StoredBytes() <= p.BytesPerDay
}

// Today returns how many stored bytes were read on the day of now, by the marks of the
// snapshots that are still there.
func Today(items []repository.Item, now time.Time) (sum int64) {
	day := Day(now)
	for n := range items {
		i := &items[n]
		for _, k := range i.Verifications {
			if Day(k.Time()).Equal(day) {
				sum += i.StoredBytes()
			}
		}
		if Day(i.MarkedAt(backup.MarkDamaged)).Equal(day) {
			sum += i.StoredBytes()
		}
	}
	return sum
}

// Day returns when the day of t began, in UTC.
func Day(t time.Time) time.Time { return t.UTC().Truncate(24 * time.Hour) }

// Next returns the snapshot to verify next, or nil if there is none. Suspect ones are never
// verified: what they say is that their content is in doubt.
//
// Two kinds of turns alternate. One takes the furthest snapshot of the newest history, if it was
// never verified: a restore would take it. The other takes the one that was read longest ago,
// where a snapshot counts as read when it was taken. If the newest always went first, and more
// were taken than verified, no other would ever be read again.
func (p Policy) Next(items []repository.Item, now time.Time) *repository.Item {
	items = candidates(items)
	if len(items) == 0 {
		return nil
	}
	newest := &items[len(items)-1]
	if p.At(newest, now).IsZero() && !p.readNewest(items, now) {
		return newest
	}
	oldest := &items[0]
	for n := range items {
		if p.read(&items[n], now).Before(p.read(oldest, now)) {
			oldest = &items[n]
		}
	}
	return oldest
}

// candidates returns the snapshots that are verified, in the order of their histories.
func candidates(items []repository.Item) []repository.Item {
	out := slices.DeleteFunc(slices.Clone(items), func(i repository.Item) bool {
		return !i.Exists || i.Taken == backup.Suspect
	})
	slices.SortFunc(out, repository.CompareHistory)
	return out
}

// readNewest reports whether the last verification read the snapshot that was the newest
// then.
func (p Policy) readNewest(items []repository.Item, now time.Time) bool {
	last := p.Last(items, now)
	for n := range slices.Backward(items) {
		i := &items[n]
		if t := taken(i, now); !t.IsZero() && !t.After(last) {
			return p.At(i, now).Equal(last)
		}
	}
	return false
}

// read returns when the snapshot was last read as a whole: when it was verified, or taken.
func (p Policy) read(i *repository.Item, now time.Time) time.Time {
	return later(p.At(i, now), taken(i, now))
}

// taken is when the snapshot was begun, or zero if that lies in the future.
func taken(i *repository.Item, now time.Time) time.Time { return timely(i.ID.Time(), now) }

// timely returns t, or zero if it lies in the future.
func timely(t, now time.Time) time.Time {
	if t.After(now.Add(backup.Skew)) {
		return time.Time{}
	}
	return t
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
