package duty_test

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/duty"
	"github.com/etcd-backupd/backupd/internal/health"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/storage"
)

// otherMarker is the marker of another repository.
func otherMarker(t *testing.T) []byte {
	t.Helper()
	m := backup.NewMarker(time.Now())
	raw, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// id is the id of the repository at the place.
func (p *place) id() string {
	p.t.Helper()
	repo, err := repository.Open(p.t.Context(), p.mem, "")
	if err != nil {
		p.t.Fatal(err)
	}
	return repo.ID()
}

// TestIdentity_None: where there is no repository a slot fails before it asks etcd for
// anything, and makes none. The operator is told at once.
func TestIdentity_None(t *testing.T) {
	p := newEmptyPlace(t).process()
	before := p.asked("Status")
	var o duty.Outcome
	if n := p.streams(func() { o = p.slot() }); n != 0 || p.asked("Status") != before {
		t.Errorf("%d streams, the members were asked %d times", n, p.asked("Status")-before)
	}
	wants(t, o, duty.Failed, "not a backupd repository")
	var hint *backup.HintError
	if !errors.Is(o.Err, fs.ErrNotExist) || !errors.As(o.Err, &hint) ||
		!strings.Contains(hint.Hint, "not mounted?") || !strings.Contains(hint.Hint, "backupd init --repo file:///backups") {
		t.Errorf("got %v", o.Err)
	}
	p.healthy(health.Failure, "there is no such repository: ")
	if h := p.backup.Health(p.now()); !errors.As(h.Err, &hint) {
		t.Errorf("got %+v", h)
	}
	wants(t, p.verify.Do(t.Context(), duty.Run{}), duty.Failed, "not a backupd repository")
	if keys := p.keys(); len(keys) != 0 {
		t.Errorf("the store holds %q", keys)
	}
	if _, err := repository.Create(t.Context(), p.mem); err != nil {
		t.Fatal(err)
	}
	p.taken()
	if o := p.verify.Do(t.Context(), duty.Run{}); o.Result != duty.Succeeded {
		t.Errorf("got %+v", o)
	}
	p.healthy(health.OK, "")
}

// TestIdentity_MayCreate: a repository that may be made is made once, and this is
// logged.
func TestIdentity_MayCreate(t *testing.T) {
	p := newEmptyPlace(t).process()
	p.MayCreate = true
	var log bytes.Buffer
	p.Log = slog.New(slog.NewTextHandler(&log, nil))
	p.taken()
	if !strings.Contains(log.String(), "level=WARN msg=\"there was no repository, a new one was made\" id="+p.id()) {
		t.Errorf("logged:\n%s", log.String())
	}
	log.Reset()
	p.changed()
	if strings.Contains(log.String(), "was made") {
		t.Errorf("logged:\n%s", log.String())
	}
	// It is not made in the place of the one that is known now.
	p.remove(p.keys()...)
	p.remove(p.keys()...) // the marks of the removal, too
	p.put()
	wants(t, p.slot(), duty.Failed, "is not at its address")
	if keys := p.keys(); len(keys) != 0 || len(p.backup.Waiting()) != 1 {
		t.Errorf("the store holds %q, %d wait", keys, len(p.backup.Waiting()))
	}
}

// TestIdentity_Pinned: a process that knows the id of its repository receives a snapshot
// also if the repository was never there, and stores it in no other.
func TestIdentity_Pinned(t *testing.T) {
	for name, at := range map[string]func(p *place){
		"Absent":  func(*place) {},
		"Another": func(p *place) { p.write(backup.MarkerKey, otherMarker(p.t)) },
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t).process()
			marker, id := p.read(backup.MarkerKey), p.id()
			p.Subject.Known = duty.NewKnowledge(p.now(), id)
			p.remove(backup.MarkerKey)
			at(p.place)
			left := p.keys()
			var o duty.Outcome
			if n := p.streams(func() { o = p.slot() }); n != 1 {
				t.Errorf("%d streams", n)
			}
			wants(t, o, duty.Failed, id)
			var hint *backup.HintError
			if !errors.As(o.Err, &hint) || !strings.Contains(hint.Hint, "mounted?") ||
				!strings.Contains(hint.Hint, "backupd init --repo file:///backups") {
				t.Errorf("got %v", o.Err)
			}
			p.healthy(health.Failure, "there is no such repository: ")
			if got := p.keys(); !slices.Equal(got, left) || len(p.backup.Waiting()) != 1 {
				t.Errorf("the store holds %q, before %q; %d wait", got, left, len(p.backup.Waiting()))
			}
			p.write(backup.MarkerKey, marker) // it is mounted
			if o := p.backup.Upload(t.Context(), duty.Run{}); o.Result != duty.Succeeded || len(p.backup.Waiting()) != 0 {
				t.Errorf("got %+v", o)
			}
			wants(t, p.slot(), duty.Skipped, "")
			p.healthy(health.OK, "")
		})
	}
}

// TestIdentity_Swapped: the repository is replaced, or goes away, between the look and
// the manifest. The snapshot is not reported as stored: it waits for its repository.
func TestIdentity_Swapped(t *testing.T) {
	for name, swap := range map[string]func(p *place){
		"Gone":    func(*place) {},
		"Another": func(p *place) { p.write(backup.MarkerKey, otherMarker(p.t)) },
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlace(t).process()
			m := p.taken()
			marker := p.read(backup.MarkerKey)
			var left []string
			p.hook.After = func(_ context.Context, op storage.Op, key string) error {
				if k, err := backup.ParseKey(key); op == storage.OpCreate && err == nil && k.Kind == backup.KindData {
					p.remove(backup.MarkerKey)
					left = slices.DeleteFunc(p.keys(), func(other string) bool {
						return other == key || strings.Contains(other, "/streams/")
					})
					swap(p.place)
				}
				return nil
			}
			p.put()
			wants(t, p.slot(), duty.Failed, "waits in")
			p.hook.After = nil
			got := slices.DeleteFunc(p.keys(), func(key string) bool { return key == backup.MarkerKey })
			if !slices.Equal(got, left) || len(p.backup.Waiting()) != 1 {
				t.Errorf("the store holds %q, before %q; %d wait", got, left, len(p.backup.Waiting()))
			}
			if f := p.Known.Now(); f.Newest().ID != m.ID || f.Confirmed.After(m.StartedAt) {
				t.Errorf("got %+v", f)
			}
			p.write(backup.MarkerKey, marker)
			if o := p.backup.Upload(t.Context(), duty.Run{}); o.Result != duty.Succeeded {
				t.Errorf("got %+v", o)
			}
		})
	}
}

// TestIdentity_SwappedPending: a pending snapshot stays pending if the repository is
// replaced before it is stored, also if the new one holds that very snapshot.
func TestIdentity_SwappedPending(t *testing.T) {
	p := newPlace(t).process()
	p.taken()
	up := p.down()
	p.put()
	wants(t, p.slot(), duty.Failed, "waits in")
	up()
	opened := 0
	p.hook.After = func(_ context.Context, op storage.Op, key string) error {
		if op == storage.OpOpen && key == backup.MarkerKey {
			if opened++; opened == 1 { // by the upload, which asks who it is
				p.write(backup.MarkerKey, otherMarker(t))
			}
		}
		return nil
	}
	before := len(p.keys())
	var o duty.Outcome
	lines := p.traced(func() { o = p.backup.Upload(t.Context(), duty.Run{}) })
	wants(t, o, duty.Failed, "another repository (")
	if len(p.backup.Waiting()) != 1 || len(p.keys()) != before || count(lines, "create ") != 0 {
		t.Errorf("%d wait, the store holds %q after %q", len(p.backup.Waiting()), p.keys(), lines)
	}
}

// TestIdentity_SwappedPrune: nothing is removed from another repository.
func TestIdentity_SwappedPrune(t *testing.T) {
	p := newPlace(t).process()
	p.taken()
	p.changed()
	p.hook.After = func(_ context.Context, op storage.Op, key string) error {
		if k, err := backup.ParseKey(key); op == storage.OpCreate && err == nil && k.Kind == backup.KindManifest {
			p.write(backup.MarkerKey, otherMarker(t))
		}
		return nil
	}
	p.put()
	var o duty.Outcome
	lines := p.traced(func() { o = p.slot() })
	if o.Prune == nil || o.Prune.Removed != 0 || !errors.As(o.Prune.Err, new(*repository.AbsentError)) {
		t.Errorf("got %+v", o.Prune)
	}
	if n := count(lines, "delete ") - count(lines, "delete prod/streams/"); n != 0 { // its own announcement
		t.Errorf("%d deletions", n)
	}
}
