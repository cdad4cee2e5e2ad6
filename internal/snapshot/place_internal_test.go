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

// TestFindStored: only this very snapshot counts, not another of the same second.
func TestFindStored(t *testing.T) {
	s := mem.New()
	second := time.Date(2026, 11, 20, 10, 15, 0, 0, time.UTC)
	add := func(after time.Duration, plain byte) *backup.Manifest {
		m := backup.Manifest{
			Format: backup.ManifestFormat, Repository: "the-only-repository", Capture: captured(second.Add(after)),
		}
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
	find := func() *backup.Manifest {
		c := captured(second)
		m, err := findStored(t.Context(), repository.At(s, "any").Cluster("prod"), &c)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	add(-time.Minute, 1)
	add(time.Minute, 1)
	// Two sidecars took two snapshots in one second, or one sidecar took this one.
	add(time.Millisecond, 1)
	add(0, 2)
	if err := s.Create(t.Context(), "prod/snapshots/20261120T101500Z-r7-aaaaaa.t1-aaaaaa.0.json",
		strings.NewReader("nonsense")); err != nil {
		t.Fatal(err)
	}
	if m := find(); m != nil {
		t.Errorf("others of this second: got %+v", m)
	}
	own := add(0, 1)
	if m := find(); m == nil || m.ID != own.ID {
		t.Errorf("this very one: got %+v, want %v", m, own.ID)
	}
}

// TestPlaceLate: a snapshot that waited goes where it fits, whatever was stored since.
func TestPlaceLate(t *testing.T) {
	entry := func(key uint64, mod backup.Revision) backup.SketchEntry {
		return backup.SketchEntry{Key: key, Mod: mod, Digest: key}
	}
	at := func(cluster backup.MemberID, index uint64, keys ...backup.SketchEntry) backup.Capture {
		c := captured(time.Date(2026, 11, 20, 10, 0, int(index), 0, time.UTC))
		c.ClusterID, c.RaftIndex = cluster, index
		c.Revision, c.HighWaterRevision = backup.Revision(index), backup.Revision(index)
		c.Sketch = backup.Sketch{Limit: backup.NoLimit, Sample: keys, Recent: keys}
		return c
	}
	a, b, c := entry(1, 2), entry(2, 5), entry(3, 8)
	for name, k := range map[string]struct {
		stored map[string][]backup.Capture
		late   backup.Capture
		want   string // or a new one
	}{
		"First": {nil, at(1, 5, a), ""},
		"Between": {map[string][]backup.Capture{"t1-aaaaaa": {at(1, 3, a), at(1, 9, a, b, c)}}, at(1, 6, a, b),
			"t1-aaaaaa"},
		"Before":       {map[string][]backup.Capture{"t1-aaaaaa": {at(1, 9, a, b, c)}}, at(1, 6, a, b), "t1-aaaaaa"},
		"AfterAll":     {map[string][]backup.Capture{"t1-aaaaaa": {at(1, 3, a)}}, at(1, 6, a, b), "t1-aaaaaa"},
		"OtherCluster": {map[string][]backup.Capture{"t1-aaaaaa": {at(1, 3, a)}}, at(2, 6, a, b), ""},
		"OldOfTwo": {map[string][]backup.Capture{"t1-aaaaaa": {at(1, 3, a)}, "t2-bbbbbb": {at(2, 4, c)}}, at(1, 6, a, b),
			"t1-aaaaaa"},
		// The cluster lost its data while the snapshot waited, and has come as far again.
		"Replaced": {map[string][]backup.Capture{"t1-aaaaaa": {at(1, 3, a), at(1, 9, entry(1, 3), c)}}, at(1, 6, a, b), ""},
	} {
		t.Run(name, func(t *testing.T) {
			s := mem.New()
			for timeline, all := range k.stored {
				for _, c := range all {
					m := backup.Manifest{
						Format: backup.ManifestFormat, Repository: "the-only-repository", Capture: c, Timeline: timeline,
						FinishedAt: c.StartedAt,
					}
					m.ID, m.Stored = backup.NewDataName(m.StartedAt).WithRevision(m.Revision), m.Plain
					raw, err := m.Marshal()
					if err != nil {
						t.Fatal(err)
					}
					if err := s.Create(t.Context(), m.Key(), bytes.NewReader(raw)); err != nil {
						t.Fatal(err)
					}
				}
			}
			known, p, err := placeLate(t.Context(), repository.At(s, "any").Cluster("prod"), &k.late)
			if err != nil || p.Timeline != k.want {
				t.Fatalf("got %+v, %v, want %s", p, err, k.want)
			}
			m := backup.Manifest{Capture: k.late}
			settle(&m, known, p)
			if number := backup.TimelineNumber(m.Timeline); k.want == "" && number != len(k.stored)+1 ||
				k.want == "" && len(k.stored) > 0 && m.Origin == nil {
				t.Errorf("got %s, origin %v", m.Timeline, m.Origin)
			}
		})
	}
}
