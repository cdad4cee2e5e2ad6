// Package release knows the versions of etcd, and by which of them data is damaged.
package release

import (
	"fmt"
	"strconv"
	"strings"
)

// Release is a version of etcd.
type Release struct{ Major, Minor, Patch int }

// String returns the version without what may follow its patch.
func (r Release) String() string { return fmt.Sprintf("%d.%d.%d", r.Major, r.Minor, r.Patch) }

// Parse parses a version as members spell it: 3.5.2, 3.6.0-rc.1.
func Parse(s string) (Release, bool) {
	s, _, _ = strings.Cut(strings.TrimPrefix(s, "v"), "-")
	s, _, _ = strings.Cut(s, "+")
	parts := strings.Split(s, ".")
	if len(parts) != 3 {
		return Release{}, false
	}
	var n [3]int
	for i, p := range parts {
		var err error
		if n[i], err = strconv.Atoi(p); err != nil || n[i] < 0 {
			return Release{}, false
		}
	}
	return Release{n[0], n[1], n[2]}, true
}

// defects are the defects of released versions of etcd 3 by which members lost
// data or diverged, so that the content of a backup depends on the member. A
// version has a defect from since on, and before fixed.
var defects = []struct {
	minor, since, fixed int
	what, where         string
}{
	{4, 0, 4, "defragmenting after a crash in a defragmentation can damage the database", "etcd-io/etcd#11613"},
	{4, 0, 8, "members can diverge when auth is enabled", "etcd-io/etcd#11651"},
	{4, 20, 22, "a new member can diverge when auth is enabled", "etcd-io/etcd#14571"},
	{4, 0, 32, "the revision can go back after a crash during compaction", "etcd-io/etcd#17864"},
	{4, 0, 38, "a snapshot from the leader during defragmentation can damage the database", "etcd-io/etcd#20271"},
	{5, 0, 3, "members diverge when etcd is killed under load", "etcd-io/etcd#13766"},
	{5, 0, 6, "revisions can diverge when etcd is killed during defragmentation", "etcd-io/etcd#14733"},
	{5, 5, 6, "a new member can diverge when auth is enabled", "etcd-io/etcd#14571"},
	{5, 0, 14, "the revision can go back after a crash during compaction", "etcd-io/etcd#17865"},
	{5, 0, 23, "a snapshot from the leader during defragmentation can damage the database", "etcd-io/etcd#20271"},
	{6, 0, 5, "a snapshot from the leader during defragmentation can damage the database", "etcd-io/etcd#20271"},
}

// Defects returns the defects that a version is known to have, and the patch of its minor
// in which they are fixed.
func (r Release) Defects() (what []string, fixed int) {
	for _, d := range defects {
		if r.Major == 3 && d.minor == r.Minor && r.Patch >= d.since && r.Patch < d.fixed {
			what = append(what, fmt.Sprintf("%s (%s)", d.what, d.where))
			fixed = max(fixed, d.fixed)
		}
	}
	return what, fixed
}
