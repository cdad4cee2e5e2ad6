package intake

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/repository"
)

// stored is a snapshot in a history that is made up: revision and raft index are the same.
func stored(cluster, member backup.MemberID, rev int64, keys ...backup.SketchEntry) *backup.Manifest {
	at := time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC).Add(time.Duration(rev) * time.Minute)
	m := &backup.Manifest{
		ID: backup.NewDataName(at).WithRevision(backup.Revision(rev)), Timeline: "t1-aaaaaa",
		Capture: backup.Capture{
			Cluster: "prod", ClusterID: cluster, StartedAt: at, Members: []backup.Member{{ID: member}},
			Revision: backup.Revision(rev), RaftIndex: uint64(rev), NewestTimeline: "t1-aaaaaa",
			HashKV:   backup.HashKV{Revision: backup.Revision(rev), Hash: uint32(rev)},
			Sketch:   backup.Sketch{Limit: backup.NoLimit, Sample: keys, Recent: keys, From: backup.Revision(max(rev-1, 1))},
			Imported: &backup.Imported{TimeFrom: backup.TimeFromFile},
		},
	}
	return m
}

// key is a live key that was written once.
func key(hash uint64, rev int64) backup.SketchEntry {
	return backup.SketchEntry{Key: hash, Mod: backup.Revision(rev), Create: backup.Revision(rev), Digest: hash}
}

// TestChoose: a file gets into a history by its members or by keys, and at its end only by keys.
func TestChoose(t *testing.T) {
	head := stored(7, 1, 100, key(5, 50), key(9, 100))
	known := repository.Timelines{{
		Name: "t1-aaaaaa", Manifest: head,
		Head: repository.Item{ID: head.ID, Index: head.RaftIndex, Timeline: "t1-aaaaaa"},
	}}
	for _, c := range []struct {
		what string
		file *backup.Manifest
		want string // the reason, or the timeline
	}{
		{"the same member, earlier", stored(0, 1, 40), "t1-aaaaaa"},
		{"another member, and a key, earlier", stored(0, 2, 60, key(5, 50)), "t1-aaaaaa"},
		{"another member, and a key, later", stored(0, 2, 160, key(5, 50), key(9, 100)), "t1-aaaaaa"},
		{"another member, earlier", stored(0, 2, 40), "It has no member in common"},
		{"another member, later", stored(0, 2, 160), "It has no member in common"},
		// A cluster that was made again under the same addresses.
		{"the same member, later", stored(0, 1, 160, key(77, 150)), "It goes further than snapshot"},
		{"the same member, an old key", stored(0, 1, 160, key(77, 40)), "The database at revision 160 contradicts"},
	} {
		p := choose(known, neighbours{"t1-aaaaaa": {head}}, &c.file.Capture)
		if got := p.Timeline + p.Verdict.Reason; !strings.HasPrefix(got, c.want) {
			t.Errorf("%s: %q, want %q", c.what, got, c.want)
		}
	}
	// What was taken before the fork is of the older side.
	fork := stored(7, 1, 300, key(5, 50), key(9, 100))
	fork.Timeline = "t2-bbbbbb"
	forked := append(repository.Timelines{{Name: "t2-bbbbbb", Manifest: fork}}, known...)
	both := neighbours{"t1-aaaaaa": {head}, "t2-bbbbbb": {fork}}
	if p := choose(forked, both, &stored(0, 1, 60, key(5, 50)).Capture); p.Timeline != "t1-aaaaaa" {
		t.Errorf("before the fork: %+v", p)
	}
	p := choose(known, neighbours{}, &head.Capture)
	if p.Timeline != "" || !strings.Contains(p.Verdict.Reason, "can be read") {
		t.Errorf("no manifest can be read: %+v", p)
	}
	empty := stored(0, 1, 1).Capture
	empty.Members = nil
	if initialID([]backup.Member{{ID: 0x8e9e05c52164694d}}).String() != "cdf818194e3a8c32" || sameCluster(&empty, head) {
		t.Error("the id of the cluster that every etcd makes by its defaults is another one")
	}
}

// TestFits: a time must agree with the raft log, to the hour.
func TestFits(t *testing.T) {
	before, after := stored(7, 1, 100), stored(7, 1, 300)
	for minutes, want := range map[int]string{
		100: "", 200: "", 300: "", 41: "", 39: "after snapshot " + string(before.ID), 359: "",
		361: "before snapshot " + string(after.ID),
	} {
		c := stored(7, 1, 200).Capture
		c.StartedAt = before.StartedAt.Add(time.Duration(minutes-100) * time.Minute)
		err := fits([]*backup.Manifest{before, after}, &c)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%d: %v, want %q", minutes, err, want)
		}
		if err != nil && !errors.As(err, new(*backup.RefusedError)) {
			t.Errorf("%v is no refusal", err)
		}
	}
	c := stored(7, 1, 100).Capture // the same entry: nobody knows which came first
	c.StartedAt = c.StartedAt.Add(-2 * time.Hour)
	if err := fits([]*backup.Manifest{before, after}, &c); err != nil {
		t.Error(err)
	}
}

// TestInherit: what is imported after a snapshot that knew of another history knew of it, too. Else
// an import would end the quarrel of two clusters under one name.
func TestInherit(t *testing.T) {
	before, after := stored(0, 1, 100), stored(7, 1, 300)
	before.NewestTimeline = "t2-bbbbbb"
	id, newest := inherit([]*backup.Manifest{before, after}, &stored(0, 1, 200).Capture)
	if id != 7 || newest != "t2-bbbbbb" {
		t.Errorf("%s, %s", id, newest)
	}
	if _, newest := inherit([]*backup.Manifest{after}, &stored(0, 1, 200).Capture); newest != "" {
		t.Errorf("before all others: %s", newest)
	}
}
