package duty_test

import (
	"context"
	"io/fs"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/duty"
	"github.com/etcd-backupd/backupd/internal/health"
	"github.com/etcd-backupd/backupd/internal/storage"
)

// deny makes the store deny to read everything whose name has a part.
func (p *place) deny(part string) {
	p.hook.Before = func(_ context.Context, op storage.Op, key string) error {
		if op == storage.OpOpen && strings.Contains(key, part) {
			return fs.ErrPermission
		}
		return nil
	}
}

// TestDenied_Manifest: one manifest cannot be read, because another user has stored it or it
// was moved to an archive. Backups and prunes go on without it, nothing counts on it, it is
// not removed, and the operator is told.
func TestDenied_Manifest(t *testing.T) {
	p := newPlace(t).process()
	first := p.taken()
	denied := p.changed()
	pinned := backup.Mark{Kind: backup.MarkPin, ID: denied.ID, Reason: "by root"}
	if err := p.cluster().Marks().Note(t.Context(), pinned); err != nil {
		t.Fatal(err)
	}
	p.deny(string(denied.ID))
	for _, who := range []*process{p, p.place.process()} {
		who.look()
		who.healthy(health.Warning, "the manifest of snapshot "+string(denied.ID)+" cannot be read here: ")
		if f := who.Known.Now(); f.Newest() == nil || f.Newest().ID != first.ID {
			t.Errorf("got %+v", f.Newest())
		}
	}
	// Nothing has changed since, but nobody knows what the last one holds.
	if o := p.slot(); o.Result != duty.Succeeded || o.Prune == nil || o.Prune.Err != nil {
		t.Errorf("got %+v", o)
	}
	third := p.changed()
	p.changed()
	o := p.look()
	if o.Holds(first.ID) || !o.Holds(third.ID) || !o.Holds(denied.ID) {
		t.Errorf("got %+v", o.Items)
	}
	if n := len(o.Timelines); n != 1 {
		t.Errorf("%d timelines", n)
	}
	p.hook.Before = nil
	p.look()
	p.healthy(health.OK, "")
}

// TestDenied_All: where everything is denied the repository cannot be read, and nothing is
// concluded from that.
func TestDenied_All(t *testing.T) {
	p := newPlace(t).process()
	m := p.taken()
	p.deny("")
	if _, err := p.Look(t.Context(), p.backup.Policy); err == nil {
		t.Error("it could be read")
	}
	opened := 0
	p.hook.Before = func(_ context.Context, op storage.Op, key string) error {
		if op != storage.OpOpen {
			return nil
		}
		if opened++; opened == 1 { // the marker; then the credentials expire
			return nil
		}
		return fs.ErrPermission
	}
	again := p.place.process()
	if _, err := again.Look(t.Context(), p.backup.Policy); err == nil || opened < 3 {
		t.Errorf("it could be read, with %d objects", opened)
	}
	if f := p.Known.Now(); f.Newest() == nil || f.Newest().ID != m.ID {
		t.Errorf("got %+v", f.Newest())
	}
}
