package daemon

import (
	"context"
	"errors"
	"io"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/etcd-backupd/backupd/internal/schedule"
	"github.com/etcd-backupd/backupd/internal/server"
	"github.com/etcd-backupd/backupd/internal/snapshot"
	"github.com/etcd-backupd/backupd/internal/storage"
)

var errDown = errors.New("no route to host")

// outage is a store that can be away.
type outage struct {
	storage.Store
	down atomic.Bool
	hold chan struct{} // if not nil, every Create of data waits for it or for its context
}

func (o *outage) err() error {
	if o.down.Load() {
		return errDown
	}
	return nil
}

func (o *outage) Create(ctx context.Context, key string, r io.Reader) error {
	if err := o.err(); err != nil {
		return err
	}
	if o.hold != nil && strings.Contains(key, "/data/") {
		select {
		case <-o.hold:
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return o.Store.Create(ctx, key, r)
}

func (o *outage) Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error) {
	if err := o.err(); err != nil {
		return nil, err
	}
	return o.Store.Open(ctx, key, offset, length)
}

func (o *outage) Stat(ctx context.Context, key string) (storage.Object, error) {
	if err := o.err(); err != nil {
		return storage.Object{}, err
	}
	return o.Store.Stat(ctx, key)
}

func (o *outage) List(ctx context.Context, prefix, after string) iter.Seq2[storage.Object, error] {
	if err := o.err(); err != nil {
		return func(yield func(storage.Object, error) bool) { yield(storage.Object{}, err) }
	}
	return o.Store.List(ctx, prefix, after)
}

func (o *outage) Delete(ctx context.Context, key string) error {
	if err := o.err(); err != nil {
		return err
	}
	return o.Store.Delete(ctx, key)
}

// breakable puts an outage in front of the guard's store, before anything runs.
func breakable(g *guard) *outage {
	o := &outage{Store: g.store}
	g.store = o
	return o
}

// streams counts how often etcd was asked for its database.
func (h *house) streams() int {
	return strings.Count(h.real.Members[0].Log(), `"sending database snapshot to client"`)
}

func (h *house) pending() []snapshot.PendingSpool {
	h.t.Helper()
	out, err := snapshot.Pending(filepath.Join(h.dir, "spool"))
	if err != nil {
		h.t.Fatal(err)
	}
	return out
}

// slot is one attempt that must store a snapshot, or fail with PendingError.
func (h *house) slot(g *guard, why schedule.Reason) (id string, err error) {
	h.t.Helper()
	m, _, err := g.slot(h.t.Context(), why)
	if err != nil {
		return "", err
	}
	if m == nil {
		h.t.Fatal("nothing was taken")
	}
	return string(m.ID), nil
}

// TestOutage: the store goes away, and comes back long before the next slot.
// What was received is stored then, and etcd is not asked for it again.
func TestOutage(t *testing.T) {
	h := newHouse(t)
	h.configure("@yearly", "")
	d := h.daemon()
	g := d.all()[0]
	store := breakable(g)
	h.run(d)
	h.await("the first backup", func() bool { return d.Clusters()[0].State == server.ClusterOK })

	h.put("a")
	store.down.Store(true)
	j, err := d.StartBackup("prod")
	if err != nil {
		t.Fatal(err)
	}
	if got := h.ended(d, j.ID); got.State != server.JobFailed || !strings.Contains(got.Error, "is kept in") {
		t.Fatalf("without the store: %+v", got)
	}
	if c := d.Clusters()[0]; c.State != server.ClusterWarning || len(h.pending()) != 1 {
		t.Fatalf("without the store: %+v, pending %v", c, h.pending())
	}
	g.lookIn(t.Context()) // still away
	streams := h.streams()
	store.down.Store(false)
	g.lookIn(t.Context())
	h.await("what was pending to be stored", func() bool { return d.Clusters()[0].State == server.ClusterOK })
	list, err := d.Snapshots(t.Context(), "prod", "", 10)
	if err != nil || len(list) != 2 || d.Clusters()[0].Snapshot != list[0].ID || len(h.pending()) != 0 {
		t.Errorf("got %+v, %v; pending %v", list, err, h.pending())
	}
	if h.streams() != streams {
		t.Error("etcd was asked for its database again")
	}
	if got := d.Jobs()[0]; got.State != server.JobSucceeded || got.Kind != kindBackup || got.Snapshot != list[0].ID {
		t.Errorf("on the board: %+v", got)
	}
}

// TestOutage_Slots: within a slot etcd is asked once, and in each slot anew. Who
// asks by hand gets the cluster as it is now.
func TestOutage_Slots(t *testing.T) {
	h := newHouse(t)
	d := h.daemon()
	defer d.close()
	g := d.all()[0]
	store := breakable(g)
	if _, err := h.slot(g, schedule.Scheduled); err != nil {
		t.Fatal(err)
	}
	g.backupDone(false, nil)
	store.down.Store(true)
	h.put("a")
	for i, why := range []schedule.Reason{"a slot", "its retry", "the next slot", "its retry", schedule.Manual, schedule.Manual} {
		first := why != "its retry" && (why != schedule.Manual || i == 4)
		if why == "a slot" || why == "the next slot" {
			g.backupDone(false, errDown)
		}
		before := h.streams()
		if why != schedule.Manual {
			why = schedule.Scheduled
		}
		if _, err := h.slot(g, why); !errors.Is(err, errDown) {
			t.Fatalf("try %d: %v", i, err)
		}
		if got := h.streams() - before; first && got != 1 || !first && got != 0 {
			t.Errorf("try %d: etcd was asked %d times", i, got)
		}
	}
	g.backupDone(false, errDown)
	store.down.Store(false)
	h.put("b")
	before := h.streams()
	id, err := h.slot(g, schedule.Scheduled)
	if err != nil || h.streams()-before != 1 || string(g.known.now().newest.ID) != id {
		t.Errorf("a new slot is served with what waited: %v", err)
	}
	if n := g.known.now().catalog.verified; n != 3 || len(h.pending()) != 0 { // keep-last
		t.Errorf("%d snapshots, pending %v", n, h.pending())
	}
	g.backupDone(false, nil)

	// A process that died is made up for by what it left.
	store.down.Store(true)
	h.put("c")
	if _, err := h.slot(g, schedule.Scheduled); !errors.Is(err, errDown) {
		t.Fatal(err)
	}
	store.down.Store(false)
	again := h.daemon()
	defer again.close()
	before = h.streams()
	if id, err := h.slot(again.all()[0], schedule.CaughtUp); err != nil || h.streams() != before || id != string(again.all()[0].known.now().newest.ID) {
		t.Errorf("after the restart: %s, %v, %d streams", id, err, h.streams()-before)
	}
}

// TestOutage_Unmounted: a repository that is not there any more is not made
// anew, and is not taken for one without snapshots.
func TestOutage_Unmounted(t *testing.T) {
	for name, instead := range map[string]func(t *testing.T, folder string){
		"nothing": func(*testing.T, string) {},
		"an empty folder": func(t *testing.T, folder string) {
			if err := os.Mkdir(folder, 0o700); err != nil {
				t.Fatal(err)
			}
		},
		"another repository": func(t *testing.T, folder string) {
			other := filepath.Join(t.TempDir(), "other")
			h := newHouse(t)
			h.edit(h.dir+"/repository", other)
			if _, err := h.daemon().Once(t.Context(), nil); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(other, folder); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t)
			d := h.daemon()
			defer d.close()
			g := d.all()[0]
			first, err := h.slot(g, schedule.Scheduled)
			if err != nil {
				t.Fatal(err)
			}
			g.backupDone(false, nil)
			folder := filepath.Join(h.dir, "repository")
			if err := os.Rename(folder, folder+".away"); err != nil {
				t.Fatal(err)
			}
			instead(t, folder)
			before := listing(t, folder)
			if err := g.refresh(t.Context()); err == nil {
				t.Error("all is well")
			}
			if c := d.Clusters()[0]; c.State != server.ClusterWarning || c.Hint == "" || c.Snapshot != first {
				t.Errorf("got %+v", c)
			}
			if _, err := h.slot(g, schedule.Scheduled); err == nil || len(h.pending()) != 1 {
				t.Errorf("got %v, pending %v", err, h.pending())
			}
			if after := listing(t, folder); after != before {
				t.Errorf("in the folder: %s, before %s", after, before)
			}
			if err := os.RemoveAll(folder); err != nil {
				t.Fatal(err)
			}
			if err := os.Rename(folder+".away", folder); err != nil {
				t.Fatal(err)
			}
			streams := h.streams()
			if _, err := h.slot(g, schedule.Scheduled); err != nil || h.streams() != streams {
				t.Errorf("it is back: %v, %d streams", err, h.streams()-streams)
			}
		})
	}
}

// listing returns all paths below a folder.
func listing(t *testing.T, folder string) string {
	t.Helper()
	var out []string
	err := filepath.WalkDir(folder, func(path string, _ os.DirEntry, err error) error {
		out = append(out, path)
		return err
	})
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	return strings.Join(out, " ")
}

// TestStop: a daemon that is stopped while a backup is uploaded keeps it, tells
// nobody of a failure, and leaves nothing behind that runs.
func TestStop(t *testing.T) {
	h := newHouse(t)
	told := h.webhook()
	d := h.daemon()
	store := breakable(d.all()[0])
	store.hold = make(chan struct{})
	stop := h.run(d)
	h.await("an upload to begin", func() bool { return hasRecord(h) })
	stop()
	if d.Ready() != nil || len(told()) != 0 {
		t.Errorf("told %v, ready %v", told(), d.Ready())
	}
	if got := d.Jobs()[0]; got.State != server.JobFailed || got.Ended.IsZero() {
		t.Errorf("on the board: %+v", got)
	}
	if len(h.pending()) != 1 {
		t.Fatalf("pending is %v", h.pending())
	}
	if _, err := d.StartBackup("prod"); err == nil {
		t.Error("a daemon that was stopped takes orders")
	}
	streams := h.streams()
	again := h.daemon()
	h.run(again)
	h.await("what waited to be stored", func() bool { return again.Clusters()[0].State == server.ClusterOK })
	if len(h.pending()) != 0 || h.streams() != streams {
		t.Errorf("pending %v, %d streams", h.pending(), h.streams()-streams)
	}
}

// hasRecord tells whether something was received as a whole.
func hasRecord(h *house) bool {
	found, _ := filepath.Glob(filepath.Join(h.dir, "spool", "*.pending.json"))
	return len(found) > 0
}

// TestPrune_TimeOut: a prune that does not end is an error of its own, and the
// backup stands.
func TestPrune_TimeOut(t *testing.T) {
	h := newHouse(t)
	d := h.daemon()
	defer d.close()
	g := d.all()[0]
	if _, err := h.slot(g, schedule.Scheduled); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()
	g.prune(ctx)
	if c := d.Clusters()[0]; c.State != server.ClusterWarning || !strings.Contains(c.Problem, "cannot be removed") {
		t.Errorf("got %+v", c)
	}
}
