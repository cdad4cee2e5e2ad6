package backup

import (
	"cmp"
	"crypto/rand"
	"fmt"
	"regexp"
	"strconv"
	"time"
)

// SnapshotID names one snapshot. It sorts by time, tells its revision, and ends
// in six characters, of which four are random, so that two writers at the same moment
// never make the same name. The first two are the part of the second: of two snapshots
// of one second that are equal in all else, the later one is the last.
//
//	20261120T101500Z-r123456-k7q2xd
//	time (UTC)       revision part of the second, random (a-z, 2-7)
type SnapshotID string

// DataName names the data object of one snapshot: its [SnapshotID] without the
// revision. The upload begins while the database still streams in, and a
// database tells its revision only when it is complete.
//
//	20261120T101500Z-k7q2xd
type DataName string

const (
	idTimeLayout = "20060102T150405Z"
)

var (
	snapshotIDPattern = regexp.MustCompile(`^(\d{8}T\d{6}Z)-r(0|[1-9]\d{0,18})-([a-z2-7]{6})$`)
	dataNamePattern   = regexp.MustCompile(`^(\d{8}T\d{6}Z)-([a-z2-7]{6})$`)
)

// NewDataName makes the name of a snapshot that is begun at t.
func NewDataName(t time.Time) DataName {
	const sorted = "234567abcdefghijklmnopqrstuvwxyz" // as text is
	part := t.Nanosecond() / (int(time.Second)/1024 + 1)
	return DataName(t.UTC().Format(idTimeLayout) + "-" + sorted[part/32:][:1] + sorted[part%32:][:1] + RandomName(4))
}

// ParseDataName checks that s is a whole, well-formed data name.
func ParseDataName(s string) (DataName, error) {
	m := dataNamePattern.FindStringSubmatch(s)
	if m == nil {
		return "", fmt.Errorf("parse data name %q: want the form 20261120T101500Z-k7q2xd", s)
	}
	if _, err := time.Parse(idTimeLayout, m[1]); err != nil {
		return "", fmt.Errorf("parse data name %q: no such time", s)
	}
	return DataName(s), nil
}

// Time returns when the snapshot was begun, to the second, or the zero time
// for a malformed name.
func (n DataName) Time() time.Time {
	if m := dataNamePattern.FindStringSubmatch(string(n)); m != nil {
		if t, err := time.Parse(idTimeLayout, m[1]); err == nil {
			return t
		}
	}
	return time.Time{}
}

// WithRevision makes the snapshot's id, now that its revision is known. It is
// empty for a malformed name.
func (n DataName) WithRevision(rev Revision) SnapshotID {
	m := dataNamePattern.FindStringSubmatch(string(n))
	if m == nil {
		return ""
	}
	return SnapshotID(fmt.Sprintf("%s-r%d-%s", m[1], rev, m[2]))
}

// ParseSnapshotID checks that s is a whole, well-formed id.
func ParseSnapshotID(s string) (SnapshotID, error) {
	m := snapshotIDPattern.FindStringSubmatch(s)
	if m == nil {
		return "", fmt.Errorf("parse snapshot id %q: want the form 20261120T101500Z-r123456-k7q2xd", s)
	}
	if _, err := time.Parse(idTimeLayout, m[1]); err != nil {
		return "", fmt.Errorf("parse snapshot id %q: no such time", s)
	}
	if _, err := strconv.ParseInt(m[2], 10, 64); err != nil {
		return "", fmt.Errorf("parse snapshot id %q: revision out of range", s)
	}
	return SnapshotID(s), nil
}

// DataName returns the name of the snapshot's data object, or nothing for a
// malformed id.
func (id SnapshotID) DataName() DataName {
	if m := snapshotIDPattern.FindStringSubmatch(string(id)); m != nil {
		return DataName(m[1] + "-" + m[3])
	}
	return ""
}

// Time returns when the snapshot was begun, to the second, or the zero time
// for a malformed id.
func (id SnapshotID) Time() time.Time { return id.DataName().Time() }

// Revision returns the revision the id tells, or 0 for a malformed id.
func (id SnapshotID) Revision() Revision {
	if m := snapshotIDPattern.FindStringSubmatch(string(id)); m != nil {
		if n, err := strconv.ParseInt(m[2], 10, 64); err == nil {
			return Revision(n)
		}
	}
	return 0
}

// Skew is how far ahead of ours another host's clock may be.
const Skew = 5 * time.Minute

// Future reports whether the time in the id is ahead of now by more than [Skew].
// Then a clock is wrong, or it was when the snapshot was begun.
func (id SnapshotID) Future(now time.Time) bool { return id.Time().After(now.Add(Skew)) }

// CompareIDs orders the snapshots of one cluster: by the time in their ids, then
// by revision, then as text. Text alone would not do, for revisions have no
// leading zeros.
func CompareIDs(a, b SnapshotID) int {
	return cmp.Or(a.Time().Compare(b.Time()), cmp.Compare(a.Revision(), b.Revision()), cmp.Compare(a, b))
}

// RandomName returns n random characters of the base32 alphabet a-z, 2-7: five
// bits each.
func RandomName(n int) string {
	const alphabet = "abcdefghijklmnopqrstuvwxyz234567"
	raw := make([]byte, n)
	_, _ = rand.Read(raw) // never fails: crypto/rand ends the program instead
	for i, b := range raw {
		raw[i] = alphabet[b%32]
	}
	return string(raw)
}

// TimeOf returns t as an id spells it: the id of a snapshot that is begun at t
// begins with it.
func TimeOf(t time.Time) string { return t.UTC().Format(idTimeLayout) }
