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
	"testing/synctest"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/duty"
	"github.com/etcd-backupd/backupd/internal/schedule"
	"github.com/etcd-backupd/backupd/internal/snapshot"
	"github.com/etcd-backupd/backupd/internal/spool"
	"github.com/etcd-backupd/backupd/internal/storage"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest"
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
	wants(t, o, duty.Failed, "is kept in")
	if !errors.As(o.Err, new(*snapshot.PendingError)) || !errors.Is(o.Err, errDown) || len(p.backup.Waiting()) != 1 {
		t.Errorf("got %v, %d wait", o.Err, len(p.backup.Waiting()))
	}
	p.healthy(duty.Warning, "the last backup failed")

	// The next try of the run does not receive it again.
	if n := p.streams(func() { o = p.try(schedule.Scheduled, began) }); n != 0 {
		t.Errorf("%d streams", n)
	}
	wants(t, o, duty.Failed, "the snapshot of this slot waits in the spool: ")

	up()
	if n := p.streams(func() { o = p.try(schedule.Scheduled, began) }); n != 0 {
		t.Errorf("%d streams", n)
	}
	wants(t, o, duty.Succeeded, "")
	if len(o.Late) != 0 || len(p.backup.Waiting()) != 0 || o.Prune == nil {
		t.Errorf("got %+v, %d wait", o, len(p.backup.Waiting()))
	}
	p.healthy(duty.OK, "")
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
		wants(t, p.slot(), duty.Failed, "is kept in")
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
	wants(t, p.slot(), duty.Failed, "is kept in")
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
	wants(t, p.slot(), duty.Failed, "is kept in")
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
	if o := p.backup.Upload(t.Context(), duty.Run{}); o.Result != duty.Passed || o.Reason != "nothing waits in the spool" {
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
	wants(t, before.slot(), duty.Failed, "is kept in")
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
	again.healthy(duty.Warning, "the last backup failed")
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
		"Gone":    {func(p *process) { p.remove(p.keys()...) }, "is not at its address any more"},
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
			if _, err := p.Look(t.Context(), p.backup.Policy); err == nil || !strings.Contains(err.Error(), c.problem) {
				t.Errorf("got %v", err)
			}
			if o := p.backup.Upload(t.Context(), duty.Run{}); o.Result != duty.Failed || !strings.Contains(o.Err.Error(), c.problem) {
				t.Errorf("uploaded: %+v", o)
			}
			if o := p.verify.Do(t.Context(), duty.Run{}); o.Result != duty.Failed || !strings.Contains(o.Err.Error(), c.problem) {
				t.Errorf("verified: %+v", o)
			}
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
	for who, process := range map[string]*process{"the same": p, "another": p.place.process()} {
		var o duty.Outcome
		if n := p.streams(func() { o = process.slot() }); n != 0 {
			t.Errorf("%s: %d streams", who, n)
		}
		wants(t, o, duty.Failed, "open repository: ")
		if !errors.Is(o.Err, backup.ErrCorrupt) || len(process.backup.Waiting()) != 0 {
			t.Errorf("%s: got %v", who, o.Err)
		}
		process.healthy(duty.Warning, "the last backup failed")
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
		wants(t, p.slot(), duty.Failed, "is kept in")
		up()
		log.Reset()
		return p.backup.Waiting()[0]
	}
	pending := kept()
	if err := os.WriteFile(strings.TrimSuffix(pending.Path, ".spool")+".pending.json", []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	wants(t, p.slot(), duty.Succeeded, "")
	if text := log.String(); !strings.Contains(text, "dropped a pending snapshot") || !strings.Contains(text, pending.Path) {
		t.Errorf("logged:\n%s", text)
	}

	pending = kept()
	p.remove(p.keys()...)
	p.Subject.Known = duty.NewKnowledge(p.now()) // of a new process
	p.taken()
	wants(t, p.slot(), duty.Skipped, "")
	if text := log.String(); !strings.Contains(text, "belongs to another repository") || !strings.Contains(text, pending.Path) {
		t.Errorf("logged:\n%s", text)
	}
}

// TestLook_Torn: a folder that goes away during a look lists nothing, without an
// error. It is not taken for a repository without snapshots.
func TestLook_Torn(t *testing.T) {
	p := newPlace(t).process()
	m := p.taken()
	whole := map[string][]byte{}
	for _, key := range p.keys() {
		whole[key] = p.read(key)
	}
	p.hook.Before = func(_ context.Context, op storage.Op, _ string) error {
		if op == storage.OpList {
			p.remove(p.keys()...)
		}
		return nil
	}
	if _, err := p.Look(t.Context(), p.backup.Policy); err == nil || !strings.Contains(err.Error(), "any more") {
		t.Errorf("got %v", err)
	}
	p.hook.Before = nil
	if f := p.Known.Now(); f.ReadErr == nil || f.Newest() == nil || f.Newest().ID != m.ID || f.Confirmed.IsZero() {
		t.Errorf("got %+v", f)
	}
	for key, raw := range whole {
		p.write(key, raw)
	}
	p.look()
	p.healthy(duty.OK, "")
}

// TestLook_Empty: where there is no repository yet a look makes none.
func TestLook_Empty(t *testing.T) {
	p := newPlace(t).process()
	if o := p.look(); o != nil || len(p.keys()) != 0 {
		t.Errorf("got %+v, the store holds %q", o, p.keys())
	}
	if f := p.Known.Now(); f.Read.IsZero() || f.ReadErr != nil || f.RepositoryID != "" {
		t.Errorf("got %+v", f)
	}
	p.healthy(duty.Warning, "there is no verified snapshot yet")
	if last, err := p.backup.LastDone(t.Context()); !last.IsZero() || err != nil {
		t.Errorf("got %v, %v", last, err)
	}
	m := p.taken()
	if last, err := p.place.process().backup.LastDone(t.Context()); !last.Equal(m.StartedAt) || err != nil {
		t.Errorf("got %v, %v", last, err)
	}
	p.down()
	if last, err := p.backup.LastDone(t.Context()); !last.IsZero() || !errors.Is(err, errDown) {
		t.Errorf("got %v, %v", last, err)
	}
}

// TestLook_TooSlow: a store that does not answer, or does not come to an end, is
// given up, and is not waited for where the caller has given up.
func TestLook_TooSlow(t *testing.T) {
	p := newPlace(t).process()
	p.taken()
	slow := func(op storage.Op, until time.Duration, why string) {
		t.Helper()
		synctest.Test(t, func(t *testing.T) {
			known := duty.NewKnowledge(time.Now())
			s := *p.Subject
			s.Known, s.Now = known, time.Now
			s.Store = &storagetest.Hook{Store: p.mem, Before: func(ctx context.Context, o storage.Op, _ string) error {
				if o == op {
					<-ctx.Done()
				}
				return ctx.Err()
			}}
			began := time.Now()
			if _, err := s.Look(t.Context(), p.backup.Policy); err == nil || !strings.Contains(err.Error(), why) ||
				time.Since(began) != until {
				t.Errorf("%s: got %v after %v", op, err, time.Since(began))
			}
			if f := known.Now(); f.ReadErr == nil || !f.Read.IsZero() {
				t.Errorf("%s: got %+v", op, f)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			last := known.Now().ReadErr
			if _, err := s.Look(ctx, p.backup.Policy); !errors.Is(err, context.DeadlineExceeded) || known.Now().ReadErr != last {
				t.Errorf("%s: got %v", op, err)
			}
		})
	}
	slow(storage.OpOpen, 20*time.Second, "no answer within 20s")
	slow(storage.OpList, 5*time.Minute, "no end within 5m0s")
}

// TestLook_Overtaken: a look that began before a snapshot was stored does not take
// it back, nor does it bring back one that was removed.
func TestLook_Overtaken(t *testing.T) {
	p := newPlace(t).process()
	p.taken()
	second := p.changed()
	up := p.down()
	p.put()
	wants(t, p.slot(), duty.Failed, "is kept in")
	up()
	var o duty.Outcome
	slow := *p.Subject
	slow.Store = &storagetest.Hook{Store: p.mem, After: func(_ context.Context, op storage.Op, key string) error {
		if op == storage.OpOpen && strings.HasSuffix(key, ".json") && strings.Contains(key, "/snapshots/") && o.Result == "" {
			o = p.backup.Upload(t.Context(), duty.Run{})
		}
		return nil
	}}
	if _, err := slow.Look(t.Context(), p.backup.Policy); err != nil {
		t.Fatal(err)
	}
	wants(t, o, duty.Succeeded, "")
	f := p.Known.Now()
	if f.Newest().ID != o.Snapshot || !f.Confirmed.Equal(o.Manifest.StartedAt) ||
		f.Overview.Previous.ID != o.Snapshot || o.Prune == nil || o.Prune.Removed != 1 {
		t.Errorf("got %+v, newest %+v", f, f.Newest())
	}
	var ids []backup.SnapshotID
	for _, i := range f.Overview.Items {
		ids = append(ids, i.ID)
	}
	if !slices.Equal(ids, []backup.SnapshotID{second.ID, o.Snapshot}) {
		t.Errorf("listed are %v", ids)
	}
}
