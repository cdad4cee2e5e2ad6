package duty_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/duty"
	"github.com/etcd-backupd/backupd/internal/health"
	"github.com/etcd-backupd/backupd/internal/schedule"
	"github.com/etcd-backupd/backupd/internal/snapshot"
	"github.com/etcd-backupd/backupd/internal/spool"
	"github.com/etcd-backupd/backupd/internal/storage"
)

// TestOutage: while a known repository is down a database is received once for
// each run, and kept. The next run stores it, and needs no other stream for it.
func TestOutage(t *testing.T) {
	p := newPlace(t).process()
	p.taken()
	up := p.down()
	p.put()
	began := time.Now().Round(0)
	var o duty.Outcome
	if n := p.streams(func() { o = p.try(schedule.Scheduled, began) }); n != 1 {
		t.Errorf("%d streams", n)
	}
	wants(t, o, duty.Failed, "waits in")
	if !errors.As(o.Err, new(*snapshot.PendingError)) || !errors.Is(o.Err, errDown) || len(p.backup.Waiting()) != 1 {
		t.Errorf("got %v, %d wait", o.Err, len(p.backup.Waiting()))
	}
	p.healthy(health.Warning, "the last backup failed")

	// The next try of the run does not receive it again.
	if n := p.streams(func() { o = p.try(schedule.Scheduled, began) }); n != 0 {
		t.Errorf("%d streams", n)
	}
	wants(t, o, duty.Failed, "the snapshot of this run waits in the spool: ")

	up()
	if n := p.streams(func() { o = p.try(schedule.Scheduled, began) }); n != 0 {
		t.Errorf("%d streams", n)
	}
	wants(t, o, duty.Succeeded, "")
	if len(o.Late) != 0 || len(p.backup.Waiting()) != 0 || o.Prune == nil {
		t.Errorf("got %+v, %d wait", o, len(p.backup.Waiting()))
	}
	p.healthy(health.OK, "")
}

// TestOutage_Late: a run stores what earlier ones left, and says so beside its own
// outcome. It does not count a snapshot twice, or one of before as its own.
func TestOutage_Late(t *testing.T) {
	p := newPlace(t).process()
	p.taken()
	up := p.down()
	var left []time.Time
	for range 2 {
		p.put()
		wants(t, p.slot(), duty.Failed, "waits in")
	}
	for _, w := range p.backup.Waiting() {
		left = append(left, w.Capture.StartedAt)
	}
	up()
	o := p.slot()
	wants(t, o, duty.Skipped, "as in the newest verified snapshot") // which waited
	var late []time.Time
	for _, m := range o.Late {
		late = append(late, m.StartedAt)
	}
	if len(left) != 2 || !slices.EqualFunc(late, left, time.Time.Equal) || o.Prune == nil || o.Prune.Removed != 1 {
		t.Errorf("left %v, late %v, pruned %+v", left, late, o.Prune)
	}
	if newest := p.look().Newest(); newest.ID != o.Late[1].ID {
		t.Errorf("the newest is %s", newest.ID)
	}

	// Somebody who asks by hand gets the cluster as it is now.
	up = p.down()
	p.put()
	wants(t, p.slot(), duty.Failed, "waits in")
	up()
	o = p.try(schedule.Manual, time.Now().Round(0))
	wants(t, o, duty.Succeeded, "")
	if len(o.Late) != 1 || o.Snapshot == o.Late[0].ID {
		t.Errorf("got %+v", o)
	}
}

// TestOutage_LateStaysLate: what cannot be stored yet does not keep a later run
// from taking its own snapshot.
func TestOutage_LateStaysLate(t *testing.T) {
	p := newPlace(t).process()
	p.taken()
	up := p.down()
	p.put()
	wants(t, p.slot(), duty.Failed, "waits in")
	up()
	p.put()
	refused := 0
	p.hook.Before = func(_ context.Context, op storage.Op, key string) error {
		if op == storage.OpCreate && strings.HasPrefix(key, "prod/data/") && refused == 0 {
			refused++
			return errDown
		}
		return nil
	}
	o := p.slot()
	wants(t, o, duty.Succeeded, "")
	if len(o.Late) != 0 || len(p.backup.Waiting()) != 1 {
		t.Errorf("got %+v, %d wait", o, len(p.backup.Waiting()))
	}
	o = p.backup.Upload(t.Context(), duty.Run{})
	wants(t, o, duty.Succeeded, "")
	if o.Manifest == nil || len(p.backup.Waiting()) != 0 || o.Prune == nil {
		t.Errorf("got %+v", o)
	}
	if o := p.backup.Upload(t.Context(), duty.Run{}); o.Result != duty.Passed ||
		o.Reason != "no snapshot waits in the spool" {
		t.Errorf("got %+v", o)
	}
}

// TestOutage_CaughtUp: a run that makes up for a slot takes what an earlier
// process received since then.
func TestOutage_CaughtUp(t *testing.T) {
	p := newPlace(t)
	before := p.process()
	before.taken()
	up := p.down()
	before.put()
	wants(t, before.slot(), duty.Failed, "waits in")
	up()
	now := p.process()
	now.Subject.Spool = before.Subject.Spool
	var o duty.Outcome
	if n := p.streams(func() { o = now.try(schedule.CaughtUp, p.now()) }); n != 0 {
		t.Errorf("%d streams", n)
	}
	wants(t, o, duty.Succeeded, "")
}

// TestOutage_Unknown: a repository that was never seen may be any: nothing is
// received for it.
func TestOutage_Unknown(t *testing.T) {
	p := newPlace(t)
	p.process().taken()
	p.put()
	p.down()
	again := p.process()
	var o duty.Outcome
	if n := p.streams(func() { o = again.slot() }); n != 0 {
		t.Errorf("%d streams", n)
	}
	wants(t, o, duty.Failed, "open repository: ")
	if len(again.backup.Waiting()) != 0 || again.Known.Now().ReadErr == nil {
		t.Errorf("%d wait", len(again.backup.Waiting()))
	}
	again.healthy(health.Warning, "the last backup failed")
}

// TestOutage_Replaced: a repository that is not there any more, or is another, is
// one that is down. Nothing is written to its address, also not what waited.
func TestOutage_Replaced(t *testing.T) {
	marker := func(t *testing.T) []byte {
		m := backup.NewMarker(time.Now())
		raw, err := m.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	for name, c := range map[string]struct {
		replace func(p *process)
		problem string
	}{
		"Gone":    {func(p *process) { p.remove(p.keys()...) }, "is not at its address"},
		"Another": {func(p *process) { p.write(backup.MarkerKey, marker(p.t)) }, "another repository ("},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t).process()
			m := p.taken()
			was := p.read(backup.MarkerKey)
			p.put()
			c.replace(p)
			left := p.keys()
			var o duty.Outcome
			if n := p.streams(func() { o = p.slot() }); n != 1 {
				t.Errorf("%d streams", n)
			}
			wants(t, o, duty.Failed, c.problem)
			if len(p.backup.Waiting()) != 1 {
				t.Errorf("%d wait", len(p.backup.Waiting()))
			}
			_, err := p.Look(t.Context(), p.backup.Policy)
			if err == nil || !strings.Contains(err.Error(), c.problem) {
				t.Errorf("got %v", err)
			}
			wants(t, p.backup.Upload(t.Context(), duty.Run{}), duty.Failed, c.problem)
			wants(t, p.verify.Do(t.Context(), duty.Run{}), duty.Failed, c.problem)
			if got := p.keys(); !slices.Equal(got, left) || len(p.backup.Waiting()) != 1 {
				t.Errorf("the store holds %q, before %q; %d wait", got, left, len(p.backup.Waiting()))
			}
			// What was known stays known.
			if newest := p.backup.Known.Now(); newest.Newest() == nil || newest.Newest().ID != m.ID {
				t.Errorf("known: %+v", newest)
			}
			p.write(backup.MarkerKey, was) // it is back
			if o := p.backup.Upload(t.Context(), duty.Run{}); o.Result != duty.Succeeded || len(p.backup.Waiting()) != 0 {
				t.Errorf("got %+v", o)
			}
		})
	}
}

// TestOutage_Corrupt: what a damaged marker says is not known, so nothing is kept
// for its repository, and none is made in its place.
func TestOutage_Corrupt(t *testing.T) {
	p := newPlace(t).process()
	p.taken()
	whole := p.read(backup.MarkerKey)
	p.write(backup.MarkerKey, []byte("nonsense"))
	p.put()
	left := p.keys()
	another := p.place.process()
	for who, process := range map[string]*process{"the same": p, "another": another} {
		var o duty.Outcome
		if n := p.streams(func() { o = process.slot() }); n != 0 {
			t.Errorf("%s: %d streams", who, n)
		}
		wants(t, o, duty.Failed, "open repository: ")
		if !errors.Is(o.Err, backup.ErrCorrupt) || len(process.backup.Waiting()) != 0 {
			t.Errorf("%s: got %v", who, o.Err)
		}
		process.healthy(health.Warning, "the last backup failed")
	}
	if got := p.keys(); !slices.Equal(got, left) {
		t.Errorf("the store holds %q, before %q", got, left)
	}
	p.write(backup.MarkerKey, whole)
	wants(t, p.slot(), duty.Succeeded, "")
}

// TestOutage_Lost: what waits and will never be stored is in the log.
func TestOutage_Lost(t *testing.T) {
	p := newPlace(t).process()
	p.taken()
	var log bytes.Buffer
	p.Subject.Log = slog.New(slog.NewTextHandler(&log, nil))
	p.Subject.Spool.Log = p.Subject.Log
	kept := func() spool.Pending {
		t.Helper()
		up := p.down()
		p.put()
		wants(t, p.slot(), duty.Failed, "waits in")
		up()
		log.Reset()
		return p.backup.Waiting()[0]
	}
	logged := func(text string, of spool.Pending) {
		t.Helper()
		if got := log.String(); !strings.Contains(got, text) || !strings.Contains(got, of.Path) {
			t.Errorf("logged:\n%s", got)
		}
	}
	pending := kept()
	beside := strings.TrimSuffix(pending.Path, ".spool") + ".pending.json"
	if err := os.WriteFile(beside, []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	wants(t, p.slot(), duty.Succeeded, "")
	logged("dropped a pending snapshot", pending)

	pending = kept()
	p.write(backup.MarkerKey, otherMarker(t))
	p.Subject.Known = duty.NewKnowledge(p.now(), p.id()) // of a new process, with repository-id
	p.changed()
	logged("belongs to another repository", pending)
	if own := p.backup.Waiting(); len(own) != 0 {
		t.Errorf("these wait for the new repository: %+v", own)
	}
	wants(t, p.backup.Upload(t.Context(), duty.Run{}), duty.Passed, "no snapshot waits")
}
