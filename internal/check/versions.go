package check

import (
	"fmt"
	"strings"

	"github.com/etcd-backupd/backupd/internal/check/release"
)

// Minors of etcd 3. backupd is also tested with one that is no longer maintained.
const (
	oldestTested     = 4
	oldestMaintained = 5
	newestTested     = 7
)

// checkVersion warns of versions that are known to be bad, too old or too new.
func checkVersion(l *list, version string) {
	r, ok := release.Parse(version)
	if !ok {
		l.warn("", "etcd %s: this is not a version of etcd that backupd knows", version)
		return
	}
	if r.Major != 3 || r.Minor > newestTested {
		l.warn("look for a newer backupd, and try a restore",
			"etcd %s is newer than the versions that this backupd was tested with (3.%d to 3.%d)",
			r, oldestTested, newestTested)
		return
	}
	what, fixed := r.Defects()
	if len(what) > 0 {
		hint := "upgrade to etcd 3.%d.%d or later; leave snapshot.hash-check at one or all, which finds members that differ"
		l.warn(fmt.Sprintf(hint, r.Minor, fixed), "etcd %s is known to damage data: %s", r, strings.Join(what, "; "))
	}
	switch {
	case r.Minor < oldestTested:
		l.warn("upgrade step by step, one minor at a time",
			"etcd %s has been out of support for years, and backupd is not tested with it", r)
	case r.Minor < oldestMaintained:
		l.warn("upgrade to 3.5 or later", "etcd 3.%d has had no fixes since 2026-06-01", r.Minor)
	}
}
