package duty

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/health"
	"github.com/etcd-backupd/backupd/internal/record"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest/mem"
)

// remembered is what an earlier process knew of a cluster whose newest snapshot is m.
func remembered(m *backup.Manifest) *record.Record {
	return &record.Record{
		RepositoryID: "any", Since: ago(100 * time.Hour), Read: ago(2 * time.Minute), Confirmed: ago(10 * time.Minute),
		Newest: m.ID, Revision: m.Revision, Attempted: ago(3 * time.Minute), Pruned: ago(time.Hour),
		Failing: ago(3 * time.Minute), Error: "no route to host",
	}
}

// TestRecall: what an earlier process knew counts until the repository was read, and
// then for as long as the repository agrees.
func TestRecall(t *testing.T) {
	older, newer := storedAt(ago(2*time.Hour), 7), storedAt(ago(time.Hour), 8)
	recalled := func(id string) *Subject {
		s := &Subject{Known: NewKnowledge(noon, id)}
		s.Recall(remembered(newer))
		return s
	}
	s := recalled("")
	f := s.Known.Now()
	if !f.Confirmed.Equal(ago(10*time.Minute)) || !f.Protected || f.RepositoryID != "any" || !f.Read.IsZero() ||
		!f.Since.Equal(ago(100*time.Hour)) || f.Failed == nil {
		t.Errorf("got %+v", f)
	}
	if diff := cmp.Diff(*remembered(newer), s.Record()); diff != "" {
		t.Errorf("the next process would know (-want +got):\n%s", diff)
	}
	for _, tt := range []struct {
		name      string
		stored    []*backup.Manifest
		confirmed time.Time
	}{
		{"as it was", []*backup.Manifest{older, newer}, ago(10 * time.Minute)},
		{"the newest is gone", []*backup.Manifest{older}, older.StartedAt},
		{"all are gone", nil, time.Time{}},
	} {
		store := mem.New()
		put(t, store, tt.stored...)
		k := recalled("").Known
		k.begin()
		k.saw("any", overview(t, store, noon), noon)
		if got := k.Now(); !got.Confirmed.Equal(tt.confirmed) || !got.Protected {
			t.Errorf("%s: confirmed at %v, want %v", tt.name, got.Confirmed, tt.confirmed)
		}
	}
	// The configuration names another repository.
	if f := recalled("other").Known.Now(); f.RepositoryID != "other" || !f.Confirmed.IsZero() || f.Failed != nil {
		t.Errorf("got %+v", f)
	}
	if f := recalled("any").Known.Now(); f.RepositoryID != "any" || f.Confirmed.IsZero() {
		t.Errorf("got %+v", f)
	}
}

// TestHealth_Restarted: a restart makes nothing younger, and a repository that is not
// read in time is a failure, however young the last success is.
func TestHealth_Restarted(t *testing.T) {
	b := &Backup{Subject: &Subject{Known: NewKnowledge(noon, "")}, Longest: 24 * time.Hour}
	for after, want := range map[time.Duration]health.Level{
		0: health.Warning, health.UnreadLimit - time.Second: health.Warning, health.UnreadLimit: health.Failure,
	} {
		if h := b.Health(noon.Add(after)); h.Level != want {
			t.Errorf("%v after the start: %+v, want %s", after, h, want)
		}
	}
	b.Known.change(func(f *Facts) { f.ReadErr = errors.New("no route to host") })
	b.Recall(remembered(storedAt(ago(time.Hour), 8)))
	h := b.Health(noon.Add(health.UnreadLimit))
	if h.Level != health.Failure || !strings.Contains(h.Problem, "never read since the daemon started, 30m0s ago, "+
		"and was last read at 2026-11-21T11:58:00Z: no route to host") {
		t.Errorf("got %+v", h)
	}
	h = b.Health(noon.Add(48 * time.Hour))
	if h.Level != health.Failure || !strings.Contains(h.Problem, "is 48h10m0s old") {
		t.Errorf("got %+v", h)
	}
	b.Known.change(func(f *Facts) { f.Read = noon })
	if h := b.Health(noon.Add(health.UnreadLimit)); h.Level != health.Warning {
		t.Errorf("it was read: %+v", h)
	}
}
