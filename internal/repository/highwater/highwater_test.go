package highwater_test

import (
	"strings"
	"testing"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/repository/highwater"
	"github.com/etcd-backupd/backupd/internal/storage"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest/mem"
)

var started = time.Date(2026, 11, 20, 10, 15, 0, 0, time.UTC)

// add stores the manifest of a snapshot of a timeline, taken when a member served seen.
func add(t *testing.T, s storage.Store, timeline string, minute int, rev, seen backup.Revision,
	suspect ...string) *backup.Manifest {
	t.Helper()
	at, blob := started.Add(time.Duration(minute)*time.Minute), backup.Blob{Bytes: 10, SHA256: backup.Digest{1}}
	m := &backup.Manifest{
		Format: backup.ManifestFormat, Repository: "the-only-repository",
		ID: backup.NewDataName(at).WithRevision(rev), Timeline: timeline, FinishedAt: at, Stored: blob,
		Capture: backup.Capture{
			Cluster: "prod", StartedAt: at, Members: []backup.Member{{ID: 1}}, Revision: rev, HighWaterRevision: seen,
			RaftIndex: uint64(minute + 1), Plain: blob, Suspect: suspect,
		},
	}
	raw, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Create(t.Context(), m.Key(), strings.NewReader(string(raw))); err != nil {
		t.Fatal(err)
	}
	return m
}

// TestFind: whatever was seen of the cluster counts, in whichever history.
func TestFind(t *testing.T) {
	s := mem.New()
	c := repository.At(s, "the-only-repository").Cluster("prod")
	find := func(what string, want backup.Revision) {
		t.Helper()
		if got, err := highwater.Find(t.Context(), c); err != nil || got != want {
			t.Errorf("%s: got %d, %v, want %d", what, got, err, want)
		}
	}
	find("no snapshot", 0)
	first := add(t, s, "t1-aaaaaa", 0, 40, 41)
	find("a member was ahead of the one that sent the database", 41)
	add(t, s, "t1-aaaaaa", 1, 70, 70)
	find("a later snapshot", 70)
	add(t, s, "t1-aaaaaa", 2, 90, 90, "its content is in doubt")
	find("a suspect one: its cluster has served that, too", 90)
	add(t, s, "t2-bbbbbb", 3, 5, 6)
	find("a new history that is not so far", 90)
	add(t, s, "t2-bbbbbb", 4, 2_000_000_000, 2_000_000_009)
	find("a new history that was bumped", 2_000_000_009)
	if got := highwater.Own(first); got != 41 {
		t.Errorf("the snapshot alone tells %d, want 41", got)
	}
}

// TestBump: the new revision is the margin above the mark, and never less than above what
// the manifest itself knows.
func TestBump(t *testing.T) {
	m := &backup.Manifest{Capture: backup.Capture{Revision: 40, HighWaterRevision: 42}}
	for _, c := range []struct {
		m    *backup.Manifest
		mark backup.Revision
		want uint64
		why  string
	}{
		{m, 0, highwater.Margin + 2, "seen at revision 42 and the snapshot ends at 40"},
		{m, 42, highwater.Margin + 2, "seen at revision 42"},
		{m, 1040, highwater.Margin + 1000, "seen at revision 1040"},
		{&backup.Manifest{Capture: backup.Capture{Revision: 40, HighWaterRevision: 40}}, 40, highwater.Margin,
			"nobody knows what was written after the snapshot"},
	} {
		if got := highwater.Bump(c.m, c.mark); got != c.want {
			t.Errorf("mark %d: bumped by %d, want %d", c.mark, got, c.want)
		}
		if why := highwater.Reason(c.m, c.mark); !strings.Contains(why, c.why) {
			t.Errorf("mark %d: because %s, want %q in it", c.mark, why, c.why)
		}
	}
}
