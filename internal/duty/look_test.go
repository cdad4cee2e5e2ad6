package duty_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/duty"
	"github.com/etcd-backupd/backupd/internal/health"
	"github.com/etcd-backupd/backupd/internal/storage"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest"
)

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
	if _, err := p.Look(t.Context(), p.backup.Policy); err == nil ||
		!strings.Contains(err.Error(), "is not at its address") {
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
	p.healthy(health.OK, "")
}

// TestLook_Empty: where there is no repository yet a look makes none, even if a backup
// may.
func TestLook_Empty(t *testing.T) {
	p := newEmptyPlace(t).process()
	p.MayCreate = true
	if o := p.look(); o != nil || len(p.keys()) != 0 {
		t.Errorf("got %+v, the store holds %q", o, p.keys())
	}
	if f := p.Known.Now(); f.Read.IsZero() || f.ReadErr != nil || f.RepositoryID != "" {
		t.Errorf("got %+v", f)
	}
	p.healthy(health.Warning, "there is no verified snapshot yet")
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
			known := duty.NewKnowledge(time.Now(), "")
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
			if _, err := s.Look(ctx, p.backup.Policy); !errors.Is(err, context.DeadlineExceeded) ||
				known.Now().ReadErr != last {
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
	wants(t, p.slot(), duty.Failed, "waits in")
	up()
	var o duty.Outcome
	slow := *p.Subject
	slow.Store = &storagetest.Hook{Store: p.mem, After: func(_ context.Context, op storage.Op, key string) error {
		if op == storage.OpOpen && strings.HasPrefix(key, "prod/snapshots/") && o.Result == "" {
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
		f.Overview.Timelines[0].Manifest.ID != o.Snapshot || o.Prune == nil || o.Prune.Removed != 1 {
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

// TestLook_Meanwhile: looks, verifications and slots at the same time agree in the
// end.
func TestLook_Meanwhile(t *testing.T) {
	p := newPlace(t).process()
	p.taken()
	ctx, cancel := context.WithCancel(t.Context())
	var g errgroup.Group
	defer func() { // also after a failure: nothing goes on when the test has ended
		cancel()
		_ = g.Wait()
	}()
	for range 3 {
		g.Go(func() error {
			for ctx.Err() == nil {
				if _, err := p.Look(ctx, p.backup.Policy); err != nil && ctx.Err() == nil {
					return err
				}
				p.backup.Health(p.now())
			}
			return nil
		})
	}
	g.Go(func() error {
		for ctx.Err() == nil {
			o := p.verify.Do(ctx, duty.Run{})
			// What it verifies may be removed by the policy.
			if o.Err != nil && !errors.Is(o.Err, fs.ErrNotExist) && ctx.Err() == nil {
				return o.Err
			}
		}
		return nil
	})
	var last *backup.Manifest
	for range 5 {
		last = p.changed()
	}
	cancel()
	if err := g.Wait(); err != nil {
		t.Error(err)
	}
	known := p.Known.Now()
	p.look()
	seen := p.Known.Now()
	if known.Newest().ID != last.ID || seen.Newest().ID != last.ID || !known.Confirmed.Equal(last.StartedAt) ||
		len(known.Overview.Items) != 2 || len(seen.Overview.Items) != 2 {
		t.Errorf("known: %+v\nseen: %+v", known, seen)
	}
}

// TestLook_Lost: a snapshot that is gone is a failure until it is back, unless a mark
// says that backupd removed it.
func TestLook_Lost(t *testing.T) {
	p := newPlace(t).process()
	first := p.taken()
	p.remove(first.Key(), first.DataKey()) // by another process
	second := p.taken()
	p.put()
	p.taken()
	p.look()
	p.healthy(health.OK, "")
	raw := p.read(second.Key())
	if err := p.mem.Delete(t.Context(), second.Key()); err != nil {
		t.Fatal(err)
	}
	for range 2 { // it is not forgotten by the next look
		p.look()
		p.healthy(health.Failure, "snapshots are gone that backupd did not remove: "+string(second.ID))
	}
	if lost := p.Known.Now().Lost; len(lost) != 1 || lost[0].ID != second.ID {
		t.Errorf("lost: %+v", lost)
	}
	if err := p.mem.Create(t.Context(), second.Key(), bytes.NewReader(raw)); err != nil {
		t.Fatal(err)
	}
	p.look()
	p.healthy(health.OK, "")
	// A store that cannot say whether it is there is no loss.
	if err := p.mem.Delete(t.Context(), second.Key()); err != nil {
		t.Fatal(err)
	}
	p.refuse(storage.OpStat, second.Key(), errDown)
	if _, err := p.Look(t.Context(), p.backup.Policy); !errors.Is(err, errDown) || len(p.Known.Now().Lost) != 0 {
		t.Errorf("got %v, lost %v", err, p.Known.Now().Lost)
	}
}
