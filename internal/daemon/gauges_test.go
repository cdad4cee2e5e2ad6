package daemon

import (
	"slices"
	"testing"

	"github.com/etcd-backupd/backupd/internal/schedule"
)

// TestGauges_Unknown: what is not known is absent, not 0.
func TestGauges_Unknown(t *testing.T) {
	h := newHouse(t)
	d := h.daemon()
	defer d.close()
	g := d.all()[0]
	store := breakable(g)
	store.down.Store(true)
	if err := g.refresh(t.Context()); err == nil {
		t.Fatal("it is not away")
	}
	absent := []string{
		"backupd_last_success_timestamp_seconds", "backupd_repository_snapshots", "backupd_repository_bytes", "backupd_snapshot_suspect",
		"backupd_snapshot_age_seconds", "backupd_last_verification_successful", "backupd_last_prune_timestamp_seconds", "backupd_spool_limit_bytes",
	}
	for _, name := range absent {
		if got := h.series(d, name+" "); len(got) != 0 {
			t.Errorf("got %v", got)
		}
	}
	store.down.Store(false)
	if err := g.refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := h.series(d, "backupd_repository_snapshots "); len(got) != 2 {
		t.Errorf("got %v", got)
	}
	if _, err := h.slot(g, schedule.Scheduled); err != nil {
		t.Fatal(err)
	}
	store.down.Store(true)
	if err := g.refresh(t.Context()); err == nil {
		t.Fatal("it is not away")
	}
	for _, name := range absent[:5] { // what was known stays known
		if got := h.series(d, name+" "); len(got) == 0 {
			t.Errorf("%s has vanished", name)
		}
	}
	for kind := range slices.Values(receivers) {
		if got := h.series(d, `"`+kind+`"`); len(got) != 2 {
			t.Errorf("the first notification that is dropped would be no increase: %v", got)
		}
	}
}
