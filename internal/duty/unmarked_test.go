package duty_test

import (
	"bytes"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/duty"
	"github.com/etcd-backupd/backupd/internal/health"
	"github.com/etcd-backupd/backupd/internal/repository"
)

// TestUnmarked_Daemon: a life-cycle rule removes the oldest object, the marker. A process that
// knows the repository puts the same one back, and says so: nothing waits, nothing is lost.
func TestUnmarked_Daemon(t *testing.T) {
	p := newPlace(t).process()
	first, id := p.taken(), p.id()
	var log bytes.Buffer
	p.Log = slog.New(slog.NewTextHandler(&log, nil))
	p.remove(backup.MarkerKey)
	p.changed()
	if p.id() != id || !strings.Contains(log.String(), "level=ERROR msg=\"the marker of the repository was gone") {
		t.Errorf("it is %s now, it was %s; logged:\n%s", p.id(), id, log.String())
	}
	p.healthy(health.OK, "")
	p.remove(backup.MarkerKey)
	if o := p.verify.Do(t.Context(), duty.Run{Snapshot: string(first.ID)}); o.Result != duty.Succeeded || p.id() != id {
		t.Errorf("got %+v", o)
	}
}

// TestUnmarked_Restarted: a process that was restarted knows its repository by what waits in
// the spool. It makes no other one there, and stores what waited.
func TestUnmarked_Restarted(t *testing.T) {
	p := newPlace(t).pending()
	id := p.id()
	p.remove(backup.MarkerKey)
	p.forget("")
	p.MayCreate = true
	if o := p.slot(); o.Err != nil {
		t.Errorf("got %+v", o)
	}
	if len(p.allWaiting()) != 0 || p.id() != id {
		t.Errorf("%q wait; it is %s now, it was %s", p.allWaiting(), p.id(), id)
	}
	p.healthy(health.OK, "")
}

// TestUnmarked_Stranger: a process that knows nothing makes no repository where the snapshots
// of one are, and does not guess that it is theirs. Nothing is written.
func TestUnmarked_Stranger(t *testing.T) {
	p := newPlace(t).process()
	m, id := p.taken(), p.id()
	p.remove(backup.MarkerKey)
	left := p.keys()
	p.forget("")
	p.MayCreate = true
	var o duty.Outcome
	if n := p.streams(func() { o = p.slot() }); n != 0 {
		t.Errorf("%d streams", n)
	}
	wants(t, o, duty.Failed, "they are of repository "+id)
	var hint *backup.HintError
	var unmarked *repository.UnmarkedError
	if !errors.As(o.Err, &hint) || !errors.As(o.Err, &unmarked) ||
		!strings.Contains(hint.Hint, "backupd init --repo file:///backups --repo-id "+id) {
		t.Errorf("got %v", o.Err)
	}
	p.healthy(health.Failure, "nobody knows which repository it is: ")
	// Nor one that knows a part of what is there.
	other := *m
	other.Repository, other.StartedAt = "quite-another-repository", m.StartedAt.AddDate(0, 0, -1)
	p.create(other)
	left = append(left, p.keys()...)
	p.forget(id)
	wants(t, p.slot(), duty.Failed, "they are of 2 repositories (")
	if len(p.backup.Waiting()) != 1 {
		t.Errorf("%d wait", len(p.backup.Waiting()))
	}
	for _, key := range p.keys() {
		if !slices.Contains(left, key) {
			t.Errorf("%s was written", key)
		}
	}
}
