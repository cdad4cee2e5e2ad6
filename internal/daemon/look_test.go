package daemon_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/daemon"
	"github.com/etcd-backupd/backupd/internal/server"
)

// looked waits until the repository was looked at twice, so that one of the looks
// has seen it as it is now.
func (h *house) looked(d *daemon.Daemon) {
	h.t.Helper()
	looks := func() int { // each begins with the marker
		for _, line := range series(h.t, d, `backupd_store_requests_total{operation="open",repository="main"} `) {
			n, err := strconv.Atoi(line[strings.LastIndex(line, " ")+1:])
			h.must(err)
			return n
		}
		return 0
	}
	before := looks()
	await(h.t, "a look", func() bool { return looks() > before+2 })
}

// TestLook: the knowledge follows the repository, also backwards.
func TestLook(t *testing.T) {
	h := newHouse(t)
	h.looks = often
	h.configure("@every 1s", "")
	d := h.daemon()
	h.run(d)
	older := h.manifest(d, h.ok(d).Snapshot)
	if got := h.ok(d); got.LastSuccess.Before(older.StartedAt) {
		t.Errorf("first: %+v", got)
	}
	h.put("a")
	h.job(d, "the next", func(j server.Job) bool {
		return j.State == server.JobSucceeded && j.Snapshot != string(older.ID)
	})
	newer := h.manifest(d, h.ok(d).Snapshot)
	await(t, "a slot without changes", func() bool { return d.Clusters()[0].LastSuccess.After(newer.StartedAt) })
	h.configure("@yearly", "")
	h.reload(d)
	confirmed := h.ok(d).LastSuccess
	h.looked(d)
	if c := d.Clusters()[0]; !c.LastSuccess.Equal(confirmed) || c.Snapshot != string(newer.ID) {
		t.Errorf("what was confirmed at %v is forgotten: %+v", confirmed, c)
	}
	h.rm(newer)
	await(t, "the one before", func() bool { return d.Clusters()[0].Snapshot == string(older.ID) })
	if c := d.Clusters()[0]; !c.LastSuccess.Equal(older.StartedAt) {
		t.Errorf("the newest was removed, and still counts: %+v", c)
	}
	h.rm(older)
	if c := h.troubled(d, server.ClusterFailure, "no longer holds a verified snapshot"); c.Snapshot != "" ||
		!c.LastSuccess.IsZero() {
		t.Errorf("all are gone: %+v", c)
	}
}

// TestLook_WrongClock: a time in the future does not count as protection.
func TestLook_WrongClock(t *testing.T) {
	h := newHouse(t)
	h.configure("@every 1h", "")
	m := h.taken()
	h.looks = often
	h.clock.put(2 * time.Hour)
	d := h.daemon()
	h.run(d)
	h.job(d, "a slot without changes", func(j server.Job) bool { return j.State == server.JobSkipped })
	if c := h.ok(d); c.LastSuccess.Before(m.StartedAt.Add(119 * time.Minute)) {
		t.Fatalf("got %+v", c)
	}
	h.clock.put(0)
	await(t, "the truth", func() bool { return d.Clusters()[0].LastSuccess.Equal(m.StartedAt) })
}

// listingOf is what a gate sees of a listing of prod's snapshots.
const listingOf = " x/prod/snapshots/"

// TestLook_Torn: a repository that is unmounted during a look is not taken for an
// empty one.
func TestLook_Torn(t *testing.T) {
	h := newHouse(t)
	g := h.gated()
	h.looks = often
	d, first := h.protected()
	look := g.hold("GET", listingOf)
	look.reached()
	next := g.hold("GET", "/x/backupd.json")
	folder := filepath.Join(g.s3.Dir(), "x")
	h.must(os.Rename(folder, folder+".away"))
	look.release()
	next.reached()
	if c := d.Clusters()[0]; c.Snapshot != first.Snapshot || c.State != server.ClusterOK {
		t.Errorf("after half a look: %+v", c)
	}
	next.release()
	if c := h.troubled(d, server.ClusterWarning, "the repository cannot be read"); c.Snapshot != first.Snapshot {
		t.Errorf("got %+v", c)
	}
	h.must(os.Rename(folder+".away", folder))
	h.ok(d)
}

// TestLook_Late: a look that began before a snapshot was stored, or before a
// defect was found, does not undo that.
func TestLook_Late(t *testing.T) {
	h := newHouse(t)
	g := h.gated()
	h.looks = often
	d, first := h.protected()

	h.put("late") // two snapshots of one second and revision have no order
	upload := g.hold("PUT", "prod/data/")
	j := h.ask(d)
	upload.reached()
	early := g.holdAnswer("GET", listingOf)
	early.reached()
	upload.release()
	await(t, "the snapshot", func() bool { return d.Clusters()[0].Snapshot != first.Snapshot })
	late := g.hold("GET", listingOf)
	early.release()
	late.reached()
	second := d.Clusters()[0]
	if id := backup.SnapshotID(second.Snapshot); second.Snapshot == first.Snapshot ||
		second.LastSuccess.Before(id.Time()) {
		t.Errorf("an older look had the last word: %+v", second)
	}
	late.release()
	if got := h.ended(d, j.ID); got.State != server.JobSucceeded || got.Snapshot != second.Snapshot {
		t.Errorf("got %+v", got)
	}

	early = g.holdAnswer("GET", listingOf)
	early.reached()
	g.damage(h.manifest(d, second.Snapshot).DataKey())
	if _, err := d.StartVerification(inMain("prod"), second.Snapshot); err != nil {
		t.Fatal(err)
	}
	h.troubled(d, server.ClusterFailure, "is damaged")
	early.release()
	h.looked(d)
	judged(t, d, server.ClusterFailure, "is damaged")
}
