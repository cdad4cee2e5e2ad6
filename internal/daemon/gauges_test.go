package daemon_test

import (
	"os"
	"testing"

	"github.com/etcd-backupd/backupd/internal/server"
)

// TestGauges_Unknown: a value that is not known is absent, not 0.
func TestGauges_Unknown(t *testing.T) {
	h := newHouse(t)
	h.looks = often
	h.unreadable()
	d := h.daemon()
	h.run(d)
	h.troubled(d, server.ClusterWarning, "not a directory")
	absent := []string{
		"backupd_last_success_timestamp_seconds", "backupd_repository_snapshots", "backupd_repository_bytes",
		"backupd_snapshot_suspect", "backupd_history_unaccepted", "backupd_history_rivals",
		"backupd_snapshot_age_seconds", "backupd_last_verification_successful",
		"backupd_last_prune_timestamp_seconds", "backupd_spool_limit_bytes",
	}
	for _, name := range absent {
		if got := series(t, d, name); len(got) != 0 {
			t.Errorf("got %v", got)
		}
	}
	h.must(os.Remove(h.folder()))
	await(t, "the repository to be read",
		func() bool { return len(series(t, d, "backupd_repository_snapshots{")) == 3 })
	h.backup(d, server.JobSucceeded)
	h.unreadable()
	h.troubled(d, server.ClusterWarning, "cannot be read")
	for _, name := range absent[:5] { // what was known stays known
		if got := series(t, d, name+"{"); len(got) == 0 {
			t.Errorf("%s has vanished", name)
		}
	}
	for _, kind := range []string{"webhook", "slack", "healthchecks", "command"} {
		if got := series(t, d, `"`+kind+`"`); len(got) != 2 {
			t.Errorf("the first notification that is dropped would be no increase: %v", got)
		}
	}
}
