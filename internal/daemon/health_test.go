package daemon

import (
	"errors"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/config"
	"github.com/etcd-backupd/backupd/internal/server"
	"github.com/etcd-backupd/backupd/internal/snapshot"
)

func wall() time.Time { return time.Now().Round(0) }

func TestJudge(t *testing.T) {
	now := time.Date(2026, 11, 21, 12, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) time.Time { return now.Add(-d) }
	broken := errors.New("connection refused\nby all")
	entry := snapshot.Entry{ID: backup.NewDataName(ago(time.Hour)).WithRevision(7)}
	suspect := entry
	suspect.Suspect = true
	for _, c := range []struct {
		name    string
		s       standing
		state   string
		problem string
	}{
		{"protected", standing{confirmed: ago(time.Hour)}, server.ClusterOK, ""},
		{"a slot has just been missed", standing{confirmed: ago(119 * time.Minute)}, server.ClusterOK, ""},
		{"two slots were missed", standing{confirmed: ago(131 * time.Minute)}, server.ClusterFailure, "the last verified snapshot is 2h11m0s old"},
		{"long before this daemon was started", standing{confirmed: ago(100 * time.Hour), since: now}, server.ClusterFailure, "100h0m0s old"},
		{"the schedule has just been made shorter", standing{confirmed: ago(100 * time.Hour), changed: ago(time.Hour)}, server.ClusterOK, ""},
		{"the schedule was made shorter", standing{confirmed: ago(100 * time.Hour), changed: ago(3 * time.Hour)}, server.ClusterFailure, "100h0m0s old"},
		{"and why", standing{confirmed: ago(3 * time.Hour), failed: broken, readErr: fs.ErrPermission}, server.ClusterFailure, "old: connection refused; by all"},
		{"the store is why", standing{confirmed: ago(3 * time.Hour), readErr: fs.ErrPermission}, server.ClusterFailure, "old: permission denied"},
		{"new", standing{since: now}, server.ClusterWarning, "no verified snapshot yet"},
		{"never", standing{since: ago(3 * time.Hour)}, server.ClusterFailure, "there is no verified snapshot"},
		{"all are gone", standing{since: now, protected: true}, server.ClusterFailure, "holds no good snapshot any more"},
		{"failed once", standing{confirmed: ago(time.Hour), failed: broken}, server.ClusterWarning, "the last backup failed: connection refused; by all"},
		{"not readable", standing{confirmed: ago(time.Hour), readErr: broken}, server.ClusterWarning, "cannot be read"},
		{"not verified", standing{confirmed: ago(time.Hour), verification: broken}, server.ClusterWarning, "the last verification failed"},
		{"a defect that is gone", standing{confirmed: ago(time.Hour), verification: backup.Corruptf("bytes")}, server.ClusterOK, ""},
		{"a defect", standing{confirmed: ago(time.Hour), defects: map[backup.SnapshotID]error{entry.ID: backup.Corruptf("bytes")}}, server.ClusterFailure, string(entry.ID) + " is damaged: bytes"},
		{"not pruned", standing{confirmed: ago(time.Hour), pruneError: broken}, server.ClusterWarning, "cannot be removed"},
		{"suspect", standing{confirmed: ago(time.Hour), catalog: catalog{newest: suspect}}, server.ClusterFailure, "is suspect"},
		{"data missing", standing{confirmed: ago(time.Hour), catalog: catalog{missing: entry}}, server.ClusterFailure, "is not in the repository"},
		{"copied", standing{confirmed: ago(time.Hour), catalog: catalog{clash: entry}}, server.ClusterFailure, "another manifest names the data"},
		{"a clock was wrong", standing{confirmed: ago(time.Hour), catalog: catalog{future: entry}}, server.ClusterWarning, "lies in the future"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.s.read = now; c.name == "new" {
				c.s.read = ago(time.Minute)
			}
			r := newRecord(time.Now())
			r.standing = c.s
			g := &guard{known: r, longest: time.Hour, conf: config.Cluster{Name: "prod", Snapshot: config.Snapshot{Jitter: 10 * time.Minute}},
				daemon: &Daemon{opts: Options{Hint: func(error) string { return "do something" }}}}
			got := g.judge(now)
			if got.state != c.state || !strings.Contains(got.problem, c.problem) || c.problem == "" && got.problem != "" || strings.Contains(got.problem, "\n") {
				t.Errorf("got %+v", got)
			}
			if why := strings.Contains(got.problem, ": "); why && got.hint == "" {
				t.Errorf("no hint: %+v", got)
			}
		})
	}
}

// TestStanding_Saw: what is known follows the repository, also backwards.
func TestStanding_Saw(t *testing.T) {
	at := func(d time.Duration) *backup.Manifest {
		start := wall().Add(-d)
		return &backup.Manifest{StartedAt: start, ID: backup.NewDataName(start).WithRevision(7)}
	}
	older, newer := at(2*time.Hour), at(time.Hour)
	listed := func(ms ...*backup.Manifest) map[backup.SnapshotID]bool {
		out := map[backup.SnapshotID]bool{}
		for _, m := range ms {
			out[m.ID] = true
		}
		return out
	}
	see := func(s *standing, l look) { s.saw(*s, l, wall()) }

	s := newRecord(time.Now()).standing
	see(&s, look{newest: newer})
	if s.newest != newer || !s.confirmed.Equal(newer.StartedAt) || !s.protected {
		t.Fatalf("first: %+v", s)
	}
	s.confirmed = wall() // nothing has changed since
	see(&s, look{newest: newer, listed: listed(newer)})
	if time.Since(s.confirmed) > time.Minute {
		t.Error("what was confirmed is forgotten")
	}
	see(&s, look{newest: older})
	if !s.confirmed.Equal(older.StartedAt) {
		t.Errorf("the newest was removed, and still counts: %v", s.confirmed)
	}
	s.confirmed = wall().Add(time.Hour)
	see(&s, look{newest: older, listed: listed(older)})
	if !s.confirmed.Equal(older.StartedAt) {
		t.Errorf("a wrong clock protects: %v", s.confirmed)
	}
	// A look that began before a snapshot was stored does not take it back.
	before := s
	s.holds(newer)
	s.saw(before, look{newest: older, listed: listed(older)}, wall())
	if s.newest != newer || !s.confirmed.Equal(newer.StartedAt) {
		t.Errorf("an older look had the last word: %+v", s)
	}
	// Nor a defect that was found meanwhile.
	before = s
	s.defects = with(s.defects, newer.ID, backup.Corruptf("bytes"))
	s.saw(before, look{newest: newer, listed: listed(newer)}, wall())
	if len(s.defects) != 1 {
		t.Error("a defect is forgotten")
	}
	see(&s, look{newest: older, listed: listed(older)})
	if len(s.defects) != 0 {
		t.Error("the defect of a snapshot that is gone is kept")
	}
	see(&s, look{})
	if s.newest != nil || !s.confirmed.IsZero() || !s.protected {
		t.Errorf("all are gone: %+v", s)
	}
}
