package daemon_test

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/daemon"
	"github.com/etcd-backupd/backupd/internal/server"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// busy is a daemon with two clusters. A backup of prod runs in it and does not end
// before the gate is opened.
func busy(t *testing.T) (*house, *daemon.Daemon, *rule) {
	t.Helper()
	h := newHouse(t)
	g := h.gated()
	h.configure("@yearly", h.other("second"))
	h.edit("/spool}", "/spool}\n  concurrency: 3")
	upload := g.hold("PUT", "prod/data/")
	d := h.daemon()
	h.run(d)
	upload.reached()
	await(t, "the other cluster's backup", func() bool {
		return d.Clusters()[1].Snapshot != "" && !d.Clusters()[1].Running
	})
	return h, d, upload
}

// TestBoard_Kept: the last 200 jobs are kept, and those that run.
func TestBoard_Kept(t *testing.T) {
	const kept = 200
	h, d, upload := busy(t)
	held := h.job(d, "the backup that runs", func(j server.Job) bool { return j.Cluster == "prod" })
	unknown := string(backup.NewDataName(time.Now()).WithRevision(1))
	for range kept + 50 {
		var j server.Job
		await(t, "the verification before to end", func() (ok bool) {
			var err error
			j, err = d.StartVerification(inMain("second"), unknown)
			return err == nil
		})
		h.ended(d, j.ID)
	}
	list := d.Jobs()
	if len(list) != kept || list[len(list)-1].ID != held.ID || list[0].State != server.JobFailed ||
		list[0].Cluster != "second" {
		t.Errorf("%d jobs are kept, the oldest is %+v", len(list), list[len(list)-1])
	}
	if c := d.Clusters(); !c[0].Running || c[1].Running {
		t.Errorf("wrong about what runs: %+v", c)
	}
	if _, err := d.StartBackup(inMain("prod")); err == nil || d.Jobs()[0].ID != list[0].ID {
		t.Errorf("a job that was not started is on the board: %v", err)
	}
	upload.release()
	if got := h.ended(d, held.ID); got.State != server.JobSucceeded || d.Clusters()[0].Running {
		t.Errorf("got %+v", got)
	}
}

// panics is a log that panics at a message.
type panics struct {
	slog.Handler
	at string
}

func (p panics) Handle(ctx context.Context, r slog.Record) error {
	if r.Message == p.at {
		panic("oh")
	}
	return p.Handler.Handle(ctx, r)
}

func (p panics) WithAttrs(as []slog.Attr) slog.Handler { return panics{p.Handler.WithAttrs(as), p.at} }

// TestBoard_Abandon: a job that panics has ended, and the daemon goes on.
func TestBoard_Abandon(t *testing.T) {
	h := newHouse(t)
	h.taken()
	h.log = panics{h.log, "snapshot stored"}
	d := h.daemon()
	h.run(d)
	h.ok(d)
	got := h.backup(d, server.JobFailed)
	if got.Error == "" || got.Ended.IsZero() || d.Clusters()[0].Running {
		t.Errorf("after a panic: %+v", got)
	}
	if got := h.verify(d, server.Latest); got.State != server.JobSucceeded {
		t.Errorf("after that: %+v", got)
	}
}

// reader is a subscriber that notes the jobs it receives.
type reader struct {
	mu    sync.Mutex
	told  []server.Job
	ended chan struct{}
	end   context.CancelFunc
}

// subscribe returns a reader that has received one job.
func (h *house) subscribe(d *daemon.Daemon) *reader {
	h.t.Helper()
	ctx, cancel := context.WithCancel(h.t.Context())
	r := &reader{ended: make(chan struct{}), end: cancel}
	go func() {
		defer close(r.ended)
		d.Subscribe(ctx, r.take)
	}()
	for len(r.jobs()) == 0 {
		h.verify(d, server.Latest)
	}
	return r
}

func (r *reader) take(j server.Job) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.told = append(r.told, j)
}

func (r *reader) jobs() []server.Job {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.told)
}

// of returns the states of one job that the reader has received.
func (r *reader) of(id string) []server.Job {
	return slices.DeleteFunc(r.jobs(), func(j server.Job) bool { return j.ID != id })
}

// TestBoard_Subscribe: the subscriber receives every change in order, the end of a
// job last, and nothing after it has gone. The tests of the server show that a
// slow caller holds up nobody.
func TestBoard_Subscribe(t *testing.T) {
	h := newHouse(t)
	d, _ := h.protected()
	r := h.subscribe(d)
	good := h.backup(d, server.JobSucceeded)
	bad := h.verify(d, string(backup.NewDataName(time.Now()).WithRevision(1)))
	if good.Stage == "" || bad.State != server.JobFailed {
		t.Fatalf("got %+v and %+v", good, bad)
	}
	await(t, "the reader to be told", func() bool {
		told := r.of(bad.ID)
		return len(told) > 0 && told[len(told)-1].State == bad.State
	})
	for _, want := range []server.Job{good, bad} {
		told := r.of(want.ID)
		if diff := cmp.Diff(want, told[len(told)-1]); diff != "" {
			t.Errorf("told last (-want +got):\n%s", diff)
		}
		if told[0].State != server.JobRunning {
			t.Errorf("told first: %+v", told[0])
		}
	}
	all := r.jobs()
	if !slices.IsSortedFunc(all, func(a, b server.Job) int { return a.Started.Compare(b.Started) }) {
		t.Errorf("told in another order: %+v", all)
	}
	r.end()
	<-r.ended
	h.backup(d, server.JobSucceeded)
	if len(r.jobs()) != len(all) {
		t.Error("a reader that has gone still gets reports")
	}
}

// TestBoard_Progress: within one stage no more than four changes a second.
func TestBoard_Progress(t *testing.T) {
	h := newHouse(t)
	h.etcd = testserver.StartCluster(t, testserver.Options{}) // with more to receive than others need
	h.configure("@yearly", "")
	for range 8 {
		// hard to compress
		if _, err := h.etcd.Client(t).Put(t.Context(), "large", backup.RandomName(1<<20)); err != nil {
			t.Fatal(err)
		}
	}
	d, _ := h.protected()
	r := h.subscribe(d)
	got := h.verify(d, server.Latest)
	await(t, "the end", func() bool {
		told := r.of(got.ID)
		return len(told) > 0 && told[len(told)-1].State == got.State
	})
	stages := map[string]int{}
	for _, j := range r.of(got.ID) {
		stages[j.Stage]++
	}
	most := 2 + int(got.Ended.Sub(got.Started)/(250*time.Millisecond)) // and once of the end
	for stage, n := range stages {
		if n > most {
			t.Errorf("told %d times of %q, want no more than %d", n, stage, most)
		}
	}
	if got.State != server.JobSucceeded || stages["verify"] == 0 {
		t.Errorf("told of %v", stages)
	}
	r.end()
	<-r.ended
}
