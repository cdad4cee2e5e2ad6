package copies_test

import (
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/copies"
	"github.com/etcd-backupd/backupd/internal/repository/prune"
	"github.com/etcd-backupd/backupd/internal/retention"
	"github.com/etcd-backupd/backupd/internal/storage"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest"
)

// turns lets one operation of several workers go at a time.
type turns struct {
	mu      sync.Mutex
	waiting []waiter // guarded by mu
	free    bool     // guarded by mu: nobody waits any more
}

type waiter struct {
	worker, what string
	begin        chan struct{}
}

func (q *turns) wait(ctx context.Context, worker, what string) error {
	q.mu.Lock()
	if q.free {
		q.mu.Unlock()
		return ctx.Err()
	}
	w := waiter{worker, what, make(chan struct{})}
	q.waiting = append(q.waiting, w)
	q.mu.Unlock()
	select {
	case <-w.begin:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// next lets an operation of the worker go that choose picks. It reports whether one waited.
func (q *turns) next(choose func(workers []string) string) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.waiting) == 0 {
		return false
	}
	slices.SortFunc(q.waiting, func(a, b waiter) int {
		return cmp.Or(strings.Compare(a.worker, b.worker), strings.Compare(a.what, b.what))
	})
	var workers []string
	for _, w := range q.waiting {
		if !slices.Contains(workers, w.worker) {
			workers = append(workers, w.worker)
		}
	}
	worker := choose(workers)
	n := slices.IndexFunc(q.waiting, func(w waiter) bool { return w.worker == worker })
	close(q.waiting[n].begin)
	q.waiting = slices.Delete(q.waiting, n, n+1)
	return true
}

// drop forgets the operations that wait of a worker that was stopped.
func (q *turns) drop(worker string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.waiting = slices.DeleteFunc(q.waiting, func(w waiter) bool { return w.worker == worker })
}

// open lets everything go that waits, or will.
func (q *turns) open() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.free = true
	for _, w := range q.waiting {
		close(w.begin)
	}
	q.waiting = nil
}

// side is one repository of the model, and what is known of it.
type side struct {
	place
	name    string
	mu      sync.Mutex
	held    map[backup.SnapshotID]bool // guarded by mu: it was there once
	removed map[backup.SnapshotID]bool // guarded by mu: its rules have removed it
	faults  []string                   // guarded by mu
	// A second copier may make a manifest again whose data a prune is removing. It sees that,
	// and takes it back.
	moments bool
	stopped bool // a copier was stopped
}

// way is the way of a worker to the side: each operation waits for its turn.
func (s *side) way(t *testing.T, q *turns, worker string) place {
	return s.through(&storagetest.Hook{
		Store: s.Store,
		Before: func(ctx context.Context, op storage.Op, key string) error {
			return q.wait(ctx, worker, fmt.Sprint(s.name, op, key))
		},
		After: func(_ context.Context, op storage.Op, key string) error {
			s.note(t, worker, op, key)
			return nil
		},
	})
}

// note looks at the side after an operation.
func (s *side) note(t *testing.T, worker string, op storage.Op, key string) {
	k, err := backup.ParseKey(key)
	if err != nil || op != storage.OpCreate && op != storage.OpDelete {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	there := has(t, s, key)
	if k.Kind == backup.KindManifest {
		s.removed[k.ID] = op == storage.OpDelete && !there
		s.held[k.ID] = s.held[k.ID] || there
	}
	if s.moments {
		return
	}
	for _, lack := range lacking(t, s.Store) {
		s.faults = append(s.faults, fmt.Sprintf("after %s %s by %s: %s has no data", op, key, worker, lack))
	}
}

// lacking returns the manifests whose data is not there.
func lacking(t *testing.T, s storage.Store) []string {
	var out []string
	for _, key := range keys(t, s) {
		k, err := backup.ParseKey(key)
		data := backup.Key{Cluster: k.Cluster, Kind: backup.KindData, Data: k.ID.DataName()}
		if err == nil && k.Kind == backup.KindManifest && !has(t, s, data.String()) {
			out = append(out, key)
		}
	}
	return out
}

// check returns what must not be: of the snapshots that were ever there and that its rules
// have not removed, one is not whole.
func (s *side) check(t *testing.T) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := slices.Concat(s.faults, lacking(t, s.Store))
	if len(out) > 0 {
		return out
	}
	now := whole(t, s)
	for id := range s.held {
		if !s.removed[id] && !slices.Contains(now, id) {
			out = append(out, fmt.Sprintf("%s has lost %s", s.name, id))
		}
	}
	return out
}

// pruneBy removes what the rules of the side do not keep.
func pruneBy(ctx context.Context, p place, last int) error {
	policy := retention.Policy{Last: last, MinVerified: 1}
	o, err := p.prod().Look(ctx, prune.Vouch(policy), nil, time.Now())
	if err != nil {
		return err
	}
	plan, err := prune.NewPlan(o, policy, time.Now())
	if err != nil {
		return err
	}
	_, err = prune.Run(ctx, p.prod(), plan, "me", slog.New(slog.DiscardHandler))
	return err
}

func copyOnce(ctx context.Context, from, to place) error {
	c := copier(from, to)
	p, err := c.Plan(ctx, time.Now())
	if err == nil {
		_, err = c.Run(ctx, p)
	}
	return err
}

// TestCopy_Model lets a copier and a pruner of each side work at once, in any order of their
// operations, with copiers that are stopped at any of them. What was ever committed and was
// not removed by the rules of the place is whole there at every moment, and so in at least one
// of the two if not both have removed it. In the end nothing is missing.
func TestCopy_Model(t *testing.T) {
	if seed := flag.Lookup("rapid.seed"); seed.Value.String() == "0" { // the same histories each time
		if err := flag.Set(seed.Name, "20261130"); err != nil {
			t.Fatal(err)
		}
	}
	interleaved := 0
	rapid.Check(t, func(rt *rapid.T) {
		var thrown any // by a draw; it must reach the goroutine of the check
		synctest.Test(t, func(t *testing.T) {
			defer func() { thrown = recover() }()
			interleaved += modelRun(t, rt)
		})
		if thrown != nil {
			panic(thrown)
		}
	})
	if interleaved < 500 {
		t.Errorf("only %d operations had a choice of workers", interleaved)
	}
}

// modelRun returns how many operations had a choice of workers.
func modelRun(t *testing.T, rt *rapid.T) (interleaved int) {
	from, to := newSide(t, "source"), newSide(t, "destination")
	lastFrom, lastTo := rapid.IntRange(1, 4).Draw(rt, "kept here"), rapid.IntRange(1, 6).Draw(rt, "kept there")
	taken, pinned := 0, []backup.SnapshotID(nil)
	for range rapid.IntRange(1, 3).Draw(rt, "rounds") {
		for range rapid.IntRange(0, 3).Draw(rt, "backups") {
			m, data := modelManifest(taken)
			taken++
			create(t, from, m.DataKey(), data)
			create(t, from, m.Key(), marshal(t, m))
			from.held[m.ID] = true
			if rapid.IntRange(0, 2).Draw(rt, "pinned") == 0 {
				mark(t, from, backup.MarkPin, m.ID, "it must stay")
				pinned = append(pinned, m.ID)
			}
		}
		interleaved += modelRound(t, rt, from, to, lastFrom, lastTo)
		if faults := slices.Concat(from.check(t), to.check(t)); len(faults) > 0 {
			rt.Fatalf("%s", strings.Join(faults, "\n"))
		}
		time.Sleep(rapid.SampledFrom([]time.Duration{time.Minute, 11 * time.Hour, 25 * time.Hour}).Draw(rt, "later"))
	}
	for range 3 { // so long may what was interrupted be in the way
		time.Sleep(25 * time.Hour)
		if err := pruneBy(t.Context(), to.way(t, &turns{free: true}, "last pruner"), lastTo); err != nil {
			rt.Fatal(err)
		}
	}
	r := copyAll(t, copier(from.place, to.place))
	for _, l := range r.LeftOut {
		if l.Cause != copies.Removed || !to.removed[l.Item.ID] {
			rt.Fatalf("%s is still left out: %s", l.Item.ID, l.Reason)
		}
	}
	for _, id := range whole(t, from) {
		if !to.removed[id] && !slices.Contains(whole(t, to), id) {
			rt.Fatalf("%s is missing", id)
		}
	}
	for _, id := range pinned {
		pin := backup.Key{Cluster: "prod", Kind: backup.KindMark, ID: id, Mark: backup.MarkPin}
		// A copier that was stopped before its second look may have lost a pin to a prune. The
		// next one makes it again, unless a prune comes first.
		lost := to.removed[id] && to.stopped
		if from.removed[id] || !lost && (to.removed[id] || !has(t, to, pin.String())) {
			rt.Fatalf("%s was pinned: removed here %v, there %v", id, from.removed[id], to.removed[id])
		}
	}
	return interleaved
}

func newSide(t *testing.T, name string) *side {
	return &side{
		place: newPlace(t), name: name,
		held: map[backup.SnapshotID]bool{}, removed: map[backup.SnapshotID]bool{},
	}
}

// modelManifest makes a manifest of a snapshot that was begun two days ago.
func modelManifest(n int) (*backup.Manifest, []byte) {
	m, data := manifest(line1, n)
	at := time.Now().Add(-48*time.Hour + time.Duration(n)*time.Minute).UTC().Truncate(time.Second)
	m.ID, m.StartedAt, m.FinishedAt = backup.NewDataName(at).WithRevision(m.Revision), at, at
	return m, data
}

// modelRound runs the three at once until all have ended.
func modelRound(t *testing.T, rt *rapid.T, from, to *side, lastFrom, lastTo int) (interleaved int) {
	q := &turns{}
	ctx, stop := context.WithCancel(t.Context())
	var running sync.WaitGroup
	defer func() { // a draw may have ended the run
		stop()
		q.open()
		running.Wait()
	}()
	failed := map[string]error{}
	var mu sync.Mutex // guards failed
	work := func(worker string, do func() error) {
		running.Go(func() {
			err := do()
			mu.Lock()
			defer mu.Unlock()
			failed[worker] = err
		})
	}
	work("copier", func() error { return copyOnce(ctx, from.way(t, q, "copier"), to.way(t, q, "copier")) })
	second := func() error {
		return copyOnce(t.Context(), from.way(t, q, "second copier"), to.way(t, q, "second copier"))
	}
	if to.moments = rapid.Bool().Draw(rt, "two copiers"); to.moments {
		work("second copier", second)
	}
	work("pruner here", func() error { return pruneBy(t.Context(), from.way(t, q, "pruner here"), lastFrom) })
	work("pruner there", func() error { return pruneBy(t.Context(), to.way(t, q, "pruner there"), lastTo) })
	stopAt := rapid.IntRange(-60, 60).Draw(rt, "copier is stopped at")
	favourite := rapid.SampledFrom([]string{"copier", "pruner here", "pruner there"}).Draw(rt, "favourite")
	for n, idle := 0, 0; idle < 20; n++ {
		synctest.Wait()
		if n == stopAt {
			stop()
			to.stopped = true
			q.drop("copier")
			synctest.Wait()
		}
		if q.next(func(workers []string) string {
			if len(workers) > 1 {
				interleaved++
			}
			return choose(rt, workers, favourite)
		}) {
			idle = 0
			continue
		}
		idle++ // all have ended, or somebody looks again in a moment
		time.Sleep(100 * time.Millisecond)
	}
	running.Wait()
	for worker, err := range failed {
		stopped := worker == "copier" && errors.Is(err, context.Canceled)
		again := strings.Contains(fmt.Sprint(err), "and it is still there") // a copier has made the mark once more
		if err != nil && !stopped && !again {
			rt.Fatalf("%s: %v", worker, err)
		}
	}
	return interleaved
}

// choose picks the worker whose operation goes next: often the favourite.
func choose(rt *rapid.T, workers []string, favourite string) string {
	if len(workers) == 1 {
		return workers[0]
	}
	if slices.Contains(workers, favourite) && rapid.IntRange(0, 3).Draw(rt, "favourite goes") > 0 {
		return favourite
	}
	return rapid.SampledFrom(workers).Draw(rt, "next")
}
