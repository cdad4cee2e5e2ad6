package daemon_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/server"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// TestVerify: a defect that a scheduled verification finds counts until the
// snapshot is gone, and nothing counts on that snapshot.
func TestVerify(t *testing.T) {
	h := newHouse(t)
	h.looks = often
	proxy := h.through()[0]
	proxy.Cut()
	h.configure("@yearly", "    verify: {schedule: \"@every 1s\"}")
	told := h.webhook("success", "failure")
	d := h.daemon()
	h.run(d)
	verification := func(which string, ok func(server.Job) bool) server.Job {
		t.Helper()
		seen := time.Now()
		return h.job(d, which, func(j server.Job) bool {
			return j.Kind == "verify" && j.Reason == "scheduled" && j.State != server.JobRunning &&
				j.Started.After(seen) &&
				ok(j)
		})
	}
	verification("one without a snapshot", func(j server.Job) bool { return j.State == server.JobSkipped })
	if got := series(t, d, "backupd_last_verification"); len(got) != 0 {
		t.Errorf("without a snapshot: %v", got)
	}
	proxy.Resume()
	await(t, "the first backup", func() bool { return h.ended(d, h.ask(d).ID).State == server.JobSucceeded })
	older := h.ok(d).Snapshot
	h.put("a")
	newest := h.manifest(d, h.backup(d, server.JobSucceeded).Snapshot)
	verification("a good one", func(j server.Job) bool {
		return j.State == server.JobSucceeded && j.Snapshot == string(newest.ID)
	})
	if !counts(t, d, `backupd_last_verification_successful{cluster="prod",repository="main"} 1`) {
		t.Error("a good one is not known")
	}
	h.damage(newest.DataKey())
	c := h.troubled(d, server.ClusterFailure, string(newest.ID))
	await(t, "the one before to count", func() bool { return d.Clusters()[0].Snapshot == older })
	if c.Hint == "" || d.Ready() == nil {
		t.Errorf("got %+v", c)
	}
	await(t, "word of it", func() bool { return slices.Contains(kinds(told()), "verify failure") })
	if all := kinds(told()); slices.Index(all, "verify success") < slices.Index(all, "backup recovery") {
		t.Errorf("a skipped one was reported: %v", all)
	}
	if got := h.verify(d, older); got.State != server.JobSucceeded || got.Snapshot != older ||
		d.Clusters()[0].State != server.ClusterFailure {
		t.Errorf("another one that is good mends it: %+v, %+v", got, d.Clusters()[0])
	}
	if !counts(t, d, `backupd_last_verification_successful{cluster="prod",repository="main"} 0`) {
		t.Errorf("got %v", series(t, d, "backupd_last_verification_successful"))
	}
	h.rm(newest)
	await(t, "the end of it", func() bool { return d.Ready() == nil })
}

// TestVerify_Unchanged: a damaged snapshot does not count for a cluster that has
// not changed.
func TestVerify_Unchanged(t *testing.T) {
	for name, part := range map[string]func(*backup.Manifest) string{"data": (*backup.Manifest).DataKey,
		"manifest": (*backup.Manifest).Key} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			h.looks = often
			d, first := h.protected()
			damaged := h.manifest(d, first.Snapshot)
			h.damage(part(damaged))
			if got := h.verify(d, server.Latest); got.State != server.JobFailed || got.Snapshot != first.Snapshot {
				t.Fatalf("no defect was found: %+v", got)
			}
			h.configure("@every 1s", "")
			h.reload(d)
			got := h.job(d, "another one", func(j server.Job) bool {
				return j.Kind == "backup" && j.State == server.JobSucceeded && j.Snapshot != first.Snapshot
			})
			if m := h.manifest(d, got.Snapshot); m.Revision != damaged.Revision ||
				d.Clusters()[0].Snapshot != got.Snapshot {
				t.Errorf("got %+v", m)
			}
			h.job(d, "a slot without changes", func(j server.Job) bool { return j.State == server.JobSkipped })
			h.remove(damaged.Key(), damaged.DataKey())
			await(t, "the defect to be forgotten", func() bool { return d.Ready() == nil })
		})
	}
}

// TestVerify_Manifest: another daemon finds by itself that the newest manifest is
// damaged, and one damaged manifest does not hide the others.
func TestVerify_Manifest(t *testing.T) {
	h := newHouse(t)
	h.configure("@hourly", "")
	older := h.taken()
	h.put("a")
	damaged := h.taken()
	h.damage(damaged.Key())
	h.looks = often
	h.endpoints = []string{testserver.FreeURL(t)} // so that it takes none
	h.configure("@yearly", "")
	blind := h.daemon()
	h.run(blind)
	if c := h.troubled(blind, server.ClusterFailure, string(damaged.ID)+" is damaged"); c.Snapshot != string(older.ID) {
		t.Errorf("got %+v", c)
	}
	h.endpoints = nil
	h.configure("@hourly", "")
	d, out := h.once()
	if m := out.Manifest; m == nil || m.Revision != damaged.Revision || d.Clusters()[0].Snapshot != string(m.ID) {
		t.Errorf("got %+v", out)
	}
	// The damaged one may go: like a suspect one it does not count for retention.
	if list := pages(t, d, 10); !slices.Contains(list, string(older.ID)) {
		t.Errorf("listed are %v", list)
	}
}

// TestVerify_Latest: the latest snapshot is the furthest of its history, whatever
// speaks against it; the schedule verifies the newest that is not suspect.
func TestVerify_Latest(t *testing.T) {
	h := newHouse(t)
	h.configure("@yearly", "    verify: {schedule: \"@every 1s\"}")
	h.looks = often
	d, first := h.protected()
	m := *h.manifest(d, first.Snapshot)
	m.StartedAt = m.StartedAt.Add(time.Second)
	m.Suspect = []string{"a member answered another hash"}
	m.ID = backup.NewDataName(m.StartedAt).WithRevision(m.Revision)
	h.create(&m)
	if got := h.verify(d, server.Latest); got.State != server.JobFailed || got.Snapshot != string(m.ID) {
		t.Errorf("by hand: %+v", got)
	}
	asked := time.Now()
	got := h.job(d, "a scheduled verification", func(j server.Job) bool {
		return j.Kind == "verify" && j.Reason == "scheduled" && j.Started.After(asked) && j.State != server.JobRunning
	})
	if got.State != server.JobSucceeded || got.Snapshot != first.Snapshot {
		t.Errorf("by schedule: %+v", got)
	}
	if c := h.troubled(d, server.ClusterFailure, "m"); c.Snapshot != first.Snapshot {
		t.Errorf("got %+v", c)
	}
	h.configure("@every 1s", "")
	h.reload(d)
	h.job(d, "a slot, which does not rely on the one before", func(j server.Job) bool {
		return j.Kind == "backup" && j.State == server.JobSucceeded && j.Snapshot != first.Snapshot
	})
}

// TestFuture: a snapshot that was taken while a clock was wrong does not count
// for the present.
func TestFuture(t *testing.T) {
	h := newHouse(t)
	h.configure("@hourly", "")
	d, out := h.once()
	if out.Err != nil {
		t.Fatal(out.Err)
	}
	m := *h.manifest(d, string(out.Manifest.ID))
	m.StartedAt = m.StartedAt.AddDate(1, 0, 0)
	m.ID = backup.NewDataName(m.StartedAt).WithRevision(m.Revision)
	h.create(&m)
	again, next := h.once()
	if c := again.Clusters()[0]; next.Reason == "" || c.Snapshot != string(out.Manifest.ID) ||
		c.State != server.ClusterWarning || !strings.Contains(c.Problem, "future") {
		t.Errorf("got %+v, %+v", next, c)
	}
	h.clock.put(3 * time.Hour)
	if c := again.Clusters()[0]; c.State != server.ClusterFailure {
		t.Errorf("three hours later: %+v", c)
	}
}

func TestDefragment(t *testing.T) {
	h := newHouse(t)
	h.etcd = testserver.StartCluster(t, testserver.Options{}) // whose file is made smaller
	h.configure("@yearly", "    defragment: {schedule: \"@every 1s\", threshold: 0.1}")
	cl := h.etcd.Client(t)
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
	await(t, "etcd to say that it did it", func() bool {
		h.put("another") // pages are free when something is written after they were freed
		return strings.Contains(h.etcd.Members[0].Log(), "finished defragment")
	})
	h.job(d, "the job", func(j server.Job) bool { return j.Kind == "defragment" && j.State == server.JobSucceeded })
}
