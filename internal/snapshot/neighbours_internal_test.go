package snapshot

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest/mem"
)

// captured returns the capture of a snapshot that was begun at the time.
func captured(started time.Time) backup.Capture {
	return backup.Capture{
		Cluster: "prod", StartedAt: started.UTC(), Revision: 7, HighWaterRevision: 7,
		Members:      []backup.Member{{ID: 1, Name: "m1", PeerURLs: []string{"http://10.0.0.1:2380"}}},
		MemberHashes: []backup.MemberHash{}, Plain: backup.Blob{Bytes: 1, SHA256: backup.Digest{1}}, Tool: "test",
	}
}

// TestFindNeighbours: the nearest readable snapshots on either side.
func TestFindNeighbours(t *testing.T) {
	s := mem.New()
	second := time.Date(2026, 11, 20, 10, 15, 0, 0, time.UTC)
	add := func(after time.Duration, plain byte) *backup.Manifest {
		m := backup.Manifest{Format: backup.ManifestFormat, Capture: captured(second.Add(after))}
		m.ID = backup.NewDataName(m.StartedAt).WithRevision(m.Revision)
		m.Timeline, m.FinishedAt = "t1-aaaaaa", m.StartedAt
		m.Plain.SHA256[0] = plain
		m.Stored = m.Plain
		raw, err := m.Marshal()
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Create(t.Context(), m.Key(), bytes.NewReader(raw)); err != nil {
			t.Fatal(err)
		}
		return &m
	}
	find := func(after time.Duration) neighbours {
		c := captured(second.Add(after))
		n, err := findNeighbours(t.Context(), repository.At(s, "any").Cluster("prod"), &c)
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	want := func(what string, got, want *backup.Manifest) {
		t.Helper()
		if (got == nil) != (want == nil) || got != nil && got.ID != want.ID {
			t.Errorf("%s: got %+v, want %+v", what, got, want)
		}
	}
	n := find(0)
	want("before nothing", n.before, nil)
	want("after nothing", n.after, nil)

	first, near := add(-time.Hour, 1), add(-time.Minute, 1)
	later, last := add(time.Minute, 1), add(time.Hour, 1)
	for _, id := range []string{"20261120T101459Z-r7-aaaaaa", "20261120T101501Z-r7-aaaaaa"} {
		if err := s.Create(t.Context(), "prod/snapshots/"+id+".t1-aaaaaa.0.json",
			strings.NewReader("nonsense")); err != nil {
			t.Fatal(err)
		}
	}
	n = find(0)
	want("before", n.before, near)
	want("after", n.after, later)
	want("same", n.same, nil)
	n = find(-2 * time.Hour)
	want("before all", n.before, nil)
	want("first", n.after, first)
	n = find(2 * time.Hour)
	want("last", n.before, last)
	want("after all", n.after, nil)

	// Two sidecars took two snapshots in one second, or one sidecar took this one.
	add(time.Millisecond, 1)
	add(0, 2)
	want("others of this second", find(0).same, nil)
	own := add(0, 1)
	want("this very one", find(0).same, own)
}
