package check

import (
	"fmt"
	"strconv"
	"strings"
)

// release is a version of etcd.
type release struct{ major, minor, patch int }

func (r release) String() string { return fmt.Sprintf("%d.%d.%d", r.major, r.minor, r.patch) }

// parseRelease parses a version as members spell it: 3.5.2, 3.6.0-rc.1.
func parseRelease(s string) (release, bool) {
	s, _, _ = strings.Cut(strings.TrimPrefix(s, "v"), "-")
	s, _, _ = strings.Cut(s, "+")
	parts := strings.Split(s, ".")
	if len(parts) != 3 {
		return release{}, false
	}
	var n [3]int
	for i, p := range parts {
		var err error
		if n[i], err = strconv.Atoi(p); err != nil || n[i] < 0 {
			return release{}, false
		}
	}
	return release{n[0], n[1], n[2]}, true
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

// Minors of etcd 3. backupd is also tested with one that is no longer maintained.
const (
	oldestTested     = 4
	oldestMaintained = 5
	newestTested     = 7
)

// checkVersion warns of versions that are known to be bad, too old or too new.
func checkVersion(l *list, version string) {
	r, ok := parseRelease(version)
	if !ok {
		l.warn("", "etcd %s: this is not a version of etcd that backupd knows", version)
		return
	}
	if r.major != 3 || r.minor > newestTested {
		l.warn("look for a newer backupd, and try a restore",
			"etcd %s is newer than the versions that this backupd was tested with (3.%d to 3.%d)",
			r, oldestTested, newestTested)
		return
	}
	var what []string
	fixed := 0
	for _, d := range defects {
		if d.minor == r.minor && r.patch >= d.since && r.patch < d.fixed {
			what = append(what, fmt.Sprintf("%s (%s)", d.what, d.where))
			fixed = max(fixed, d.fixed)
		}
	}
	if len(what) > 0 {
		hint := "upgrade to etcd 3.%d.%d or later; keep snapshot.hash-check on, which finds members that differ"
		l.warn(fmt.Sprintf(hint, r.minor, fixed), "etcd %s is known to damage data: %s", r, strings.Join(what, "; "))
	}
	switch {
	case r.minor < oldestTested:
		l.warn("upgrade step by step, one minor at a time",
			"etcd %s has been out of support for years, and backupd is not tested with it", r)
	case r.minor < oldestMaintained:
		l.warn("upgrade to 3.5 or later", "etcd 3.%d has had no fixes since 2026-06-01", r.minor)
	}
}
