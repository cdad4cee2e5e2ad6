package daemon_test

import (
	"os"
	"path/filepath"
	"strings"
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
	h.back()
	await(t, "the repository to be read",
		func() bool { return len(series(t, d, "backupd_repository_snapshots{")) == 4 })
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

// TestUnconfirmed: a snapshot that no member was compared with is counted and shown
// as that. It protects the cluster only while the configuration wants it so.
func TestUnconfirmed(t *testing.T) {
	h := newHouse(t)
	h.looks = often
	h.edit("retries: 0", "retries: 0, hash-check: off")
	d := h.daemon()
	h.run(d)
	h.backup(d, server.JobUnconfirmed)
	if c := h.ok(d); c.Snapshot == "" || c.LastSuccess.IsZero() {
		t.Errorf("got %+v", c)
	}
	for name, some := range map[string]bool{
		`backupd_repository_snapshots{cluster="prod",repository="main",state="unconfirmed"}`: true,
		`backupd_repository_snapshots{cluster="prod",repository="main",state="verified"}`:    false,
		`backupd_backups_total{cluster="prod",repository="main",result="unconfirmed"}`:       true,
		`backupd_snapshot_suspect{cluster="prod",repository="main"}`:                         false,
	} {
		if got := series(t, d, name); len(got) != 1 || strings.HasSuffix(got[0], " 0") == some {
			t.Errorf("got %v", got)
		}
	}
	h.edit(", hash-check: off", "")
	h.reload(d)
	h.troubled(d, server.ClusterFailure, "no longer holds a verified snapshot")
	if got := series(t, d, "backupd_last_success_timestamp_seconds"); len(got) != 0 {
		t.Errorf("got %v", got)
	}
}

// TestGauges_Lost: snapshots that somebody else deleted are counted.
func TestGauges_Lost(t *testing.T) {
	h := newHouse(t)
	h.looks = often
	d, _ := h.protected()
	if got := series(t, d, "backupd_snapshots_lost{"); len(got) != 1 || !strings.HasSuffix(got[0], " 0") {
		t.Errorf("got %v", got)
	}
	manifests, err := filepath.Glob(h.folder() + "/prod/snapshots/*.json")
	if err != nil || len(manifests) != 1 {
		t.Fatalf("got %v, %v", manifests, err)
	}
	h.must(os.Remove(manifests[0]))
	h.troubled(d, server.ClusterFailure, "snapshots are gone that backupd did not remove: ")
	if got := series(t, d, "backupd_snapshots_lost{"); len(got) != 1 || !strings.HasSuffix(got[0], " 1") {
		t.Errorf("got %v", got)
	}
}
