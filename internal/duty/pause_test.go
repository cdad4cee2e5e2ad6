package duty_test

import (
	"strings"
	"testing"
	"time"

	"github.com/etcd-backupd/backupd/internal/duty"
	"github.com/etcd-backupd/backupd/internal/health"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/repository/pause"
	"github.com/etcd-backupd/backupd/internal/schedule"
)

// pause pauses the cluster, as another process does.
func (p *place) pause(length time.Duration) {
	p.t.Helper()
	now := time.Now()
	if _, err := pause.Set(p.t.Context(), repository.At(p.mem, "any").Cluster("prod"),
		pause.Pause{Until: now.Add(length), Reason: "an upgrade"}, now); err != nil {
		p.t.Fatal(err)
	}
}

// TestSlot_Paused: in a pause a slot asks etcd for nothing, is no attempt, and changes nothing of
// what is known of failures; then backups that are missing are none.
func TestSlot_Paused(t *testing.T) {
	p := newPlace(t).process()
	p.taken()
	p.put()
	up := p.down()
	wants(t, p.slot(), duty.Failed, "waits in")
	up()
	p.pause(20 * 24 * time.Hour)
	before := p.Known.Now()
	statuses := p.asked("Status")
	var o duty.Outcome
	if n := p.streams(func() { o = p.slot() }); n != 0 || p.asked("Status") != statuses {
		t.Errorf("%d streams, asked for its status %d times", n, p.asked("Status")-statuses)
	}
	wants(t, o, duty.Paused, "paused until ")
	f := p.Known.Now()
	if !f.Attempted.Equal(before.Attempted) || f.Failed != before.Failed || f.Failing != before.Failing || o.Prune != nil {
		t.Errorf("before %+v\nafter %+v", before, f)
	}
	if len(o.Late) != 1 || len(p.backup.Waiting()) != 0 { // what waited is stored
		t.Errorf("%d late, %d wait", len(o.Late), len(p.backup.Waiting()))
	}
	p.healthy(health.Warning, "the last backup failed")
	wants(t, p.try(schedule.Manual, time.Now().Round(0)), duty.Succeeded, "")
	p.pass(10 * 24 * time.Hour)
	wants(t, p.slot(), duty.Paused, "")
	p.healthy(health.OK, "")
	if duty.Late(&p.backup) {
		t.Error("late in a pause")
	}

	// It ends. Nobody misses a backup at once, and a look finds that one must begin.
	p.pass(10*24*time.Hour + time.Second)
	p.look()
	p.healthy(health.OK, "")
	if !duty.Late(&p.backup) {
		t.Error("the pause has ended, and no backup begins")
	}
	p.pass(pause.After)
	p.healthy(health.Failure, "the last verified snapshot is ")
	p.put()
	wants(t, p.slot(), duty.Succeeded, "")
	if duty.Late(&p.backup) {
		t.Error("late after a backup")
	}
}

// TestSlot_PausedDown: what was read of a pause counts for a day while the repository cannot be read,
// and the reason says so. A process that has read nothing takes its snapshot.
func TestSlot_PausedDown(t *testing.T) {
	p := newPlace(t).process()
	p.taken()
	p.put()
	p.pause(72 * time.Hour)
	p.look()
	q := p.place.process()
	q.Known = duty.NewKnowledge(p.now(), p.Known.Now().RepositoryID)
	q.backup.Subject = q.Subject
	p.down()
	o := p.slot()
	wants(t, o, duty.Paused, "the repository cannot be read now")
	if !strings.Contains(o.Reason, errDown.Error()) || o.Err != nil {
		t.Errorf("got %+v", o)
	}
	p.healthy(health.Warning, "the repository cannot be read")
	p.pass(23 * time.Hour)
	wants(t, p.slot(), duty.Paused, "")
	p.pass(2 * time.Hour)
	wants(t, p.slot(), duty.Failed, "waits in")
	wants(t, q.slot(), duty.Failed, "waits in")
}

// TestPaused_Lost: that the only verified snapshot is gone is told in a pause, too.
func TestPaused_Lost(t *testing.T) {
	p := newPlace(t).process()
	m := p.taken()
	p.pause(time.Hour)
	p.remove(m.Key(), m.DataKey())
	p.look()
	p.healthy(health.Failure, "the repository no longer holds a verified snapshot")
	q := p.place.process() // which has not seen it
	q.look()
	if f := q.Known.Now(); f.Pauses.Now(p.now()) == nil {
		t.Errorf("not paused: %+v", f.Pauses)
	}
	q.healthy(health.Warning, "there is no verified snapshot yet")
}

// TestDefragment_Paused: no member is defragmented in a pause that began since the last look. Somebody
// who asks for it gets it.
func TestDefragment_Paused(t *testing.T) {
	p := newPlace(t).process()
	p.taken()
	p.pause(time.Hour)
	d := duty.Defragment{Subject: p.Subject, Threshold: 1}
	statuses := p.asked("Status")
	if o := d.Do(t.Context(), duty.Run{Why: schedule.Scheduled}); o.Result != duty.Paused || o.Err != nil ||
		p.asked("Status") != statuses {
		t.Errorf("got %+v", o)
	}
	if o := d.Do(t.Context(), duty.Run{Why: schedule.Manual}); o.Result != duty.Succeeded {
		t.Errorf("asked for: %+v", o)
	}
	p.pass(2 * time.Hour)
	if o := d.Do(t.Context(), duty.Run{Why: schedule.Scheduled}); o.Result != duty.Succeeded {
		t.Errorf("after it: %+v", o)
	}
}
