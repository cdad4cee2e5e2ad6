package daemon

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/schedule"
	"github.com/etcd-backupd/backupd/internal/server"
	"github.com/etcd-backupd/backupd/internal/snapshot"
)

// damage changes a byte in the middle of an object.
func (h *house) damage(key string) {
	h.t.Helper()
	path := filepath.Join(h.dir, "repository", key)
	raw, err := os.ReadFile(path)
	if err != nil {
		h.t.Fatal(err)
	}
	raw[len(raw)/2] ^= 1
	if err := os.Chmod(path, 0o600); err != nil {
		h.t.Fatal(err)
	}
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		h.t.Fatal(err)
	}
}

func (h *house) remove(g *guard, keys ...string) {
	h.t.Helper()
	for _, key := range keys {
		if err := g.store.Delete(h.t.Context(), key); err != nil {
			h.t.Fatal(err)
		}
	}
}

// TestVerify: what a scheduled verification finds stands until the snapshot is
// gone, and nothing counts on that snapshot.
func TestVerify(t *testing.T) {
	h := newHouse(t)
	h.configure("@yearly", "    verify: {schedule: \"@every 1s\"}")
	told := h.webhook()
	d := h.daemon()
	g := d.all()[0]
	defer d.close()
	verify := func(why schedule.Reason) error { return g.jobs()[2].Run(t.Context(), why) }

	if err := verify(schedule.Scheduled); err != nil || d.Jobs()[0].State != server.JobSkipped || !g.known.now().verified.IsZero() {
		t.Errorf("without a snapshot: %v, %+v", err, d.Jobs()[0])
	}
	older, err := h.slot(g, schedule.Scheduled)
	if err != nil {
		t.Fatal(err)
	}
	g.done(kindVerify, nil) // of the one that was skipped
	h.put("a")
	if _, err := h.slot(g, schedule.Scheduled); err != nil {
		t.Fatal(err)
	}
	newest := g.known.now().newest
	if err := verify(schedule.Scheduled); err != nil || g.known.now().verification != nil || d.Jobs()[0].Snapshot != string(newest.ID) {
		t.Fatalf("a good one: %v, %+v", err, d.Jobs()[0])
	}
	h.damage(newest.DataKey())
	h.run(d) // and the schedule does it
	h.await("the failure", func() bool { return d.Clusters()[0].State == server.ClusterFailure })
	c := d.Clusters()[0]
	if !strings.Contains(c.Problem, string(newest.ID)) || c.Hint == "" || d.Ready() == nil || c.Snapshot != older {
		t.Errorf("got %+v", c)
	}
	h.await("word of it", func() bool { return slices.Contains(kinds(told()), "verify failure") })
	var j server.Job
	h.await("its turn", func() (ok bool) {
		j, err = d.StartVerification("prod", older)
		return err == nil
	})
	if got := h.ended(d, j.ID); got.State != server.JobSucceeded || got.Snapshot != older || d.Clusters()[0].State != server.ClusterFailure {
		t.Errorf("another one that is good mends it: %+v, %+v", got, d.Clusters()[0])
	}
	if got := h.series(d, "backupd_last_verification_successful"); len(got) != 1 || !strings.Contains(got[0], "value:0") {
		t.Errorf("got %v", got)
	}
	h.remove(g, newest.Key(), newest.DataKey())
	if err := g.refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	h.await("the end of it", func() bool { return d.Ready() == nil })
}

// TestVerify_Unchanged: a damaged snapshot does not stand for a cluster that has
// not changed.
func TestVerify_Unchanged(t *testing.T) {
	h := newHouse(t)
	d := h.daemon()
	defer d.close()
	g := d.all()[0]
	for name, part := range map[string]func(*backup.Manifest) string{"data": (*backup.Manifest).DataKey, "manifest": (*backup.Manifest).Key} {
		t.Run(name, func(t *testing.T) {
			h.put(name)
			if _, err := h.slot(g, schedule.Manual); err != nil {
				t.Fatal(err)
			}
			damaged := g.known.now().newest
			h.damage(part(damaged))
			if err := g.jobs()[2].Run(t.Context(), schedule.Scheduled); err == nil {
				t.Fatal("no defect was found")
			}
			again := h.daemon() // which is not told of the data, but can see the manifest
			defer again.close()
			id, err := h.slot(g, schedule.Scheduled)
			if err != nil || id == string(damaged.ID) {
				t.Errorf("got %s, %v", id, err)
			}
			if name == "manifest" {
				if err := again.all()[0].refresh(t.Context()); err != nil {
					t.Errorf("one damaged manifest hides all: %v", err)
				}
			}
			h.remove(g, damaged.Key(), damaged.DataKey())
			if err := g.refresh(t.Context()); err != nil || d.Ready() != nil {
				t.Errorf("after it was removed: %v, %v", err, d.Ready())
			}
		})
	}
}

// TestVerify_Latest is the newest verified one, whatever came after it.
func TestVerify_Latest(t *testing.T) {
	h := newHouse(t)
	d := h.daemon()
	defer d.close()
	g := d.all()[0]
	id, err := h.slot(g, schedule.Scheduled)
	if err != nil {
		t.Fatal(err)
	}
	m := *g.known.now().newest
	m.StartedAt = m.StartedAt.Add(time.Second)
	m.Suspect = []string{"a member answered another hash"}
	m.ID = backup.NewDataName(m.StartedAt).WithRevision(m.Revision)
	h.create(g, &m)
	e, err := g.toVerify(t.Context(), snapshot.Latest)
	if err != nil || string(e.ID) != id {
		t.Errorf("got %s, %v", e.ID, err)
	}
	if err := g.refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if c := d.Clusters()[0]; c.State != server.ClusterFailure || !strings.Contains(c.Problem, "suspect") || c.Snapshot != id {
		t.Errorf("got %+v", c)
	}
}

// create stores a manifest with some data.
func (h *house) create(g *guard, m *backup.Manifest) {
	h.t.Helper()
	raw, err := m.Marshal()
	if err != nil {
		h.t.Fatal(err)
	}
	for key, content := range map[string]string{m.DataKey(): "data", m.Key(): string(raw)} {
		if err := g.store.Create(h.t.Context(), key, strings.NewReader(content)); err != nil {
			h.t.Fatal(err)
		}
	}
}

// TestFuture: a snapshot that was taken while a clock was wrong does not stand
// for the present.
func TestFuture(t *testing.T) {
	h := newHouse(t)
	d := h.daemon()
	defer d.close()
	g := d.all()[0]
	id, err := h.slot(g, schedule.Scheduled)
	if err != nil {
		t.Fatal(err)
	}
	m := *g.known.now().newest
	m.StartedAt = m.StartedAt.AddDate(1, 0, 0)
	m.ID = backup.NewDataName(m.StartedAt).WithRevision(m.Revision)
	h.create(g, &m)
	again := h.daemon()
	defer again.close()
	if err := again.all()[0].refresh(t.Context()); err != nil {
		t.Fatal(err)
	}
	if c := again.Clusters()[0]; c.Snapshot != id || c.State != server.ClusterWarning || !strings.Contains(c.Problem, "future") {
		t.Errorf("got %+v", c)
	}
	if got := again.all()[0].judge(time.Now().Add(3 * time.Hour)); got.state != server.ClusterFailure {
		t.Errorf("three hours later: %+v", got)
	}
}

// TestMaxAge: no snapshot stands for the cluster for longer than that.
func TestMaxAge(t *testing.T) {
	h := newHouse(t)
	h.edit("retries: 0", "max-age: 2h, retries: 0")
	h.edit("@hourly", "@every 1h") // at all times of day the next slot is an hour away
	d := h.daemon()
	defer d.close()
	g := d.all()[0]
	if _, err := h.slot(g, schedule.Scheduled); err != nil {
		t.Fatal(err)
	}
	for age, want := range map[time.Duration]bool{30 * time.Minute: true, 119 * time.Minute: false} {
		m := *g.known.now().newest
		m.StartedAt = wall().Add(-age)
		g.known.change(func(s *standing) { s.newest = &m })
		survey, err := g.source.Survey(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if got := g.unchanged(survey); got != want {
			t.Errorf("%v old: it stands for the cluster: %v", age, got)
		}
	}
}

func TestDefragment(t *testing.T) {
	h := newHouse(t)
	h.configure("@yearly", "    defragment: {schedule: \"@every 1s\", threshold: 0.1}")
	cl := h.real.Client(t)
	for range 100 {
		if _, err := cl.Put(t.Context(), "key", strings.Repeat("x", 20<<10)); err != nil {
			t.Fatal(err)
		}
	}
	at, err := cl.Get(t.Context(), "key")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cl.Compact(t.Context(), at.Header.Revision, clientv3.WithCompactPhysical()); err != nil {
		t.Fatal(err)
	}
	d := h.daemon()
	h.run(d)
	h.await("etcd to say that it did it", func() bool {
		h.put("another") // pages are free when something is written after they were freed
		return strings.Contains(h.real.Members[0].Log(), "finished defragment")
	})
	h.await("the job", func() bool {
		return slices.ContainsFunc(d.Jobs(), func(j server.Job) bool { return j.Kind == kindDefragment && j.State == server.JobSucceeded })
	})
}

// TestTimeOuts: no job of a cluster may hold up its backups for ever.
func TestTimeOuts(t *testing.T) {
	h := newHouse(t)
	h.configure("@hourly", "    defragment: {schedule: \"@daily\"}\n    verify: {schedule: \"@daily\"}")
	d := h.daemon()
	defer d.close()
	jobs := d.jobs()
	for _, j := range jobs {
		if j.Timeout <= 0 || j.Group != "prod" {
			t.Errorf("%s may take for ever", j.Name)
		}
	}
	if len(jobs) != 4 {
		t.Errorf("%d jobs", len(jobs))
	}
}

// TestSnapshots_Pages: ids do not sort as text.
func TestSnapshots_Pages(t *testing.T) {
	h := newHouse(t)
	d := h.daemon()
	defer d.close()
	g := d.all()[0]
	if _, err := h.slot(g, schedule.Scheduled); err != nil {
		t.Fatal(err)
	}
	m := *g.known.now().newest
	var want []string
	for _, r := range []backup.Revision{9, 99, 100, 1000} {
		m.Revision, m.HighWaterRevision = r, r
		m.ID = backup.NewDataName(m.StartedAt).WithRevision(r)
		h.create(g, &m)
		want = append([]string{string(m.ID)}, want...)
	}
	var got []string
	for after := ""; ; {
		page, err := d.Snapshots(t.Context(), "prod", after, 1)
		if err != nil {
			t.Fatal(err)
		}
		if len(page) == 0 {
			break
		}
		after = page[0].ID
		got = append(got, after)
	}
	if len(got) != 5 || !slices.Equal(got[:4], want) {
		t.Errorf("got %v, want %v and one more", got, want)
	}
}
