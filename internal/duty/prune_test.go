package duty_test

import (
	"errors"
	"testing"
	"time"

	"github.com/etcd-backupd/backupd/internal/duty"
	"github.com/etcd-backupd/backupd/internal/health"
	"github.com/etcd-backupd/backupd/internal/repository/prune"
	"github.com/etcd-backupd/backupd/internal/retention"
	"github.com/etcd-backupd/backupd/internal/schedule"
)

// kept is a process with n snapshots, which it all keeps.
func kept(t *testing.T, n int) *process {
	t.Helper()
	p := newPlace(t).process()
	p.backup.Policy = retention.Policy{Last: 100}
	for range n {
		p.changed()
	}
	return p
}

// pruned is a slot that takes a snapshot. It checks how many others it removes, and how
// many of all wait.
func (p *process) pruned(removed, waiting int) {
	p.t.Helper()
	p.put()
	o := p.slot()
	if o.Result != duty.Succeeded || o.Prune == nil || o.Prune.Removed != removed {
		p.t.Fatalf("got %+v, prune %+v, want %d removed", o, o.Prune, removed)
	}
	var sudden *prune.SuddenError
	if errors.As(o.Prune.Err, &sudden); o.Prune.Err != nil && sudden == nil || (sudden != nil) != (waiting > 0) ||
		sudden != nil && (len(sudden.Snapshots) != waiting || sudden.All != len(p.look().Items)) {
		p.t.Fatalf("got %v, want %d that wait", o.Prune.Err, waiting)
	}
	if f := p.Known.Now(); (f.PruneErr != nil) != (waiting > 0) {
		p.t.Errorf("known is %v", f.PruneErr)
	}
}

// TestPrune_Sudden: a policy that removes much of what stayed until now waits for a slot,
// in which a mistake can be mended. A policy that goes on as before does not wait.
func TestPrune_Sudden(t *testing.T) {
	one, all := retention.Policy{Last: 1}, retention.Policy{Last: 100}
	p := kept(t, 5)
	p.backup.Policy = one
	p.pruned(0, 5)
	p.healthy(health.Warning, "retention would remove 5 of 6 snapshots at once, which stayed until now")
	p.pruned(0, 6) // by hand, or a retry: it is the same slot
	p.backup.Policy = all
	p.pass(time.Hour)
	p.pruned(0, 0) // mended
	p.backup.Policy = one
	p.pruned(0, 8)
	p.backup.Policy.Daily = 1
	p.pass(time.Hour)
	p.pruned(0, 9) // another one waits from its own slot on
	p.pass(time.Hour)
	p.pruned(10, 0)

	// What the policy before would remove as well does not count.
	p.backup.Policy = retention.Policy{Last: 4}
	for range 3 {
		p.pruned(0, 0)
	}
	p.pruned(1, 0)
	p.backup.Policy = retention.Policy{Last: 3}
	p.pruned(2, 0)
	p.backup.Policy = retention.Policy{Last: 5}
	for range 2 {
		p.pruned(0, 0)
	}
	p.backup.Policy = one
	p.pruned(0, 4) // the policy before removes one more
}

// TestPrune_Restarted: a process that was just started does not know which policy was in
// force before. Perhaps it was started because of the new one.
func TestPrune_Restarted(t *testing.T) {
	at := kept(t, 5).place
	p := at.process()
	p.backup.Policy = retention.Policy{Last: 1}
	p.pruned(0, 5)
	p.pass(time.Hour)
	p.pruned(6, 0)
	p.pruned(1, 0)
	// One that is stricter than the overview was made for.
	p.backup.Policy = retention.Policy{Last: 1, MinVerified: 4}
	p.pruned(0, 0)
}

// TestPrune_InForce: the policy counts that is in force when snapshots are removed.
func TestPrune_InForce(t *testing.T) {
	p := kept(t, 5)
	p.backup.Policy = retention.Policy{Last: 4}
	now, known, asked := retention.Policy{Last: 100}, true, 0
	change := func() {}
	p.backup.InForce = func() (retention.Policy, bool) { asked++; change(); return now, known }
	p.pruned(0, 0)

	known = false
	p.put()
	if o := p.slot(); o.Result != duty.Succeeded || o.Prune != nil {
		t.Errorf("a cluster that was taken out was pruned: %+v", o)
	}

	// It changes in the middle.
	now, known, asked = retention.Policy{Last: 5}, true, 0
	change = func() {
		if asked == 3 { // before the second removal
			now.Last = 100
		}
	}
	p.put()
	o := p.try(schedule.Scheduled, time.Now())
	if o.Prune == nil || o.Prune.Removed != 1 || o.Prune.Err == nil {
		t.Errorf("got %+v", o.Prune)
	}
	p.pruned(0, 0)
}
