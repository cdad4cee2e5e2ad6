package etcddb_test

import (
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
	"go.etcd.io/etcd/pkg/v3/traceutil"
	"go.etcd.io/etcd/server/v3/lease"
	"go.etcd.io/etcd/server/v3/storage/backend"
	"go.etcd.io/etcd/server/v3/storage/mvcc"
	"go.uber.org/zap"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/etcddb"
	"github.com/etcd-backupd/backupd/internal/testserver/rounds"
)

// history is etcd's own store, in this process, with a random history.
type history struct {
	t     testing.TB
	be    backend.Backend
	store kvStore
	rng   *rand.Rand
	rev   int64
}

// kvStore is what is used of the type mvcc.NewStore returns.
type kvStore interface {
	Write(*traceutil.Trace) mvcc.TxnWrite
	Compact(*traceutil.Trace, int64) (<-chan struct{}, error)
	HashStorage() mvcc.HashStorage
	Close() error
}

func openHistory(t testing.TB, path string, cfg mvcc.StoreConfig, seed uint64) *history {
	t.Helper()
	h := &history{t: t, rng: rand.New(rand.NewPCG(seed, 9))}
	h.be = backend.NewDefaultBackend(zap.NewNop(), path, backend.WithMmapSize(64<<20))
	h.store = mvcc.NewStore(zap.NewNop(), h.be, &lease.FakeLessor{}, cfg)
	t.Cleanup(h.close)
	return h
}

func (h *history) close() {
	if h.store != nil {
		must(h.t, h.store.Close())
		must(h.t, h.be.Close())
		h.store = nil
	}
}

// write commits n transactions of puts and deletes on few keys.
func (h *history) write(n int) {
	for range n {
		tx := h.store.Write(traceutil.TODO())
		for _, i := range h.rng.Perm(12)[:1+h.rng.IntN(3)] {
			key := fmt.Appendf(nil, "key-%d", i)
			if h.rng.IntN(3) == 0 {
				tx.DeleteRange(key, nil)
			} else {
				tx.Put(key, fmt.Appendf(nil, "value-%d", h.rng.Uint32()), lease.NoLease)
			}
		}
		h.rev = tx.Rev()
		if len(tx.Changes()) > 0 {
			h.rev++
		}
		tx.End()
	}
}

// compact asks for a compaction and waits until it is done.
func (h *history) compact(rev int64) {
	h.t.Helper()
	done, err := h.store.Compact(traceutil.TODO(), rev)
	must(h.t, err)
	<-done
}

// hash asks the store, as the HashKV call does.
func (h *history) hash(rev int64) backup.HashKV {
	h.t.Helper()
	got, _, err := h.store.HashStorage().HashByRev(rev)
	must(h.t, err)
	return backup.HashKV{
		Hash: got.Hash, Revision: backup.Revision(got.Revision), CompactRevision: backup.Revision(got.CompactRevision),
	}
}

func (h *history) snapshot() string {
	h.t.Helper()
	path := filepath.Join(h.t.TempDir(), "snapshot.db")
	file, err := os.Create(path)
	must(h.t, err)
	snap := h.be.Snapshot()
	_, err = snap.WriteTo(file)
	must(h.t, err)
	must(h.t, snap.Close())
	must(h.t, file.Close())
	return path
}

func copyFile(t testing.TB, from string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "copy.db")
	src, err := os.Open(from)
	must(t, err)
	defer src.Close() // only read from
	dst, err := os.Create(to)
	must(t, err)
	_, err = io.Copy(dst, src)
	must(t, err)
	must(t, dst.Close())
	return to
}

// TestHashKV_RandomHistories compares with etcd's own store over many random
// histories: never compacted, compacted, everything deleted, and at the
// compact revisions that come later.
func TestHashKV_RandomHistories(t *testing.T) {
	for seed := range uint64(rounds.Of(40)) {
		h := openHistory(t, filepath.Join(t.TempDir(), "db"), mvcc.StoreConfig{}, seed)
		h.write(1 + h.rng.IntN(40))
		if seed%4 > 0 {
			h.compact(1 + h.rng.Int64N(h.rev))
			h.write(h.rng.IntN(10))
		}
		if seed%8 == 7 { // no key left
			tx := h.store.Write(traceutil.TODO())
			if n, rev := tx.DeleteRange([]byte("a"), []byte("z")); n > 0 {
				h.rev = rev
			}
			tx.End()
		}
		path := h.snapshot()
		facts, err := etcddb.Inspect(t.Context(), path)
		must(t, err)
		if want := h.hash(0); facts.HashKV != want || int64(facts.Revision) != h.rev {
			t.Fatalf("seed %d: HashKV %+v at revision %d, etcd says %+v at %d", seed, facts.HashKV, facts.Revision,
				want, h.rev)
		}
		for range 2 { // the history goes on and is compacted meanwhile
			compacted := max(int64(facts.CompactRevision), 0)
			if compacted+1 >= h.rev {
				break
			}
			h.write(3)
			c := compacted + 1 + h.rng.Int64N(int64(facts.Revision)-compacted)
			if c == int64(facts.Revision) {
				break // etcd answers from a cache then
			}
			h.compact(c)
			want := h.hash(int64(facts.Revision))
			got, err := etcddb.HashAt(t.Context(), path, want.Revision, want.CompactRevision)
			must(t, err)
			if got != want {
				t.Fatalf("seed %d: hash at a later compaction %+v, etcd says %+v", seed, got, want)
			}
			facts.CompactRevision = want.CompactRevision
		}
		h.close()
	}
}

// TestHashKV_InterruptedCompaction takes snapshots while a compaction runs.
// A server that boots such a file resumes it, and reports its revision at once.
func TestHashKV_InterruptedCompaction(t *testing.T) {
	seen := 0
	for seed := range uint64(rounds.Of(20)) {
		slow := mvcc.StoreConfig{CompactionBatchLimit: 2 + int(seed%5), CompactionSleepInterval: time.Hour}
		h := openHistory(t, filepath.Join(t.TempDir(), "db"), slow, seed)
		h.write(30)
		_, err := h.store.Compact(traceutil.TODO(), 10+h.rng.Int64N(h.rev-10))
		must(t, err)
		path := h.snapshot()
		h.close()

		facts, err := etcddb.Inspect(t.Context(), path)
		must(t, err)
		if facts.ScheduledCompactRevision > facts.FinishedCompactRevision {
			seen++
		}
		booted := openHistory(t, copyFile(t, path), mvcc.StoreConfig{}, 0)
		want := booted.hash(0)
		if facts.HashKV != want || facts.CompactRevision != want.CompactRevision {
			t.Fatalf("seed %d: HashKV %+v, a booted store says %+v", seed, facts.HashKV, want)
		}
		booted.close()
	}
	if seen == 0 {
		t.Error("no snapshot was taken while a compaction ran")
	}
}

// TestHashKV_Leftovers hashes a file that says its compaction is finished and
// holds old records all the same.
func TestHashKV_Leftovers(t *testing.T) {
	path := build(t, func(tx *bolt.Tx) {
		put(tx, 2, 0, 2, 1, "a", nil)
		put(tx, 3, 0, 2, 2, "a", nil)
		put(tx, 4, 0, 4, 1, "b", nil)
		tombstone(tx, 5, 0, "b")
		put(tx, 6, 0, 6, 1, "c", nil)
		tombstone(tx, 7, 0, "a")
		for _, k := range []string{"scheduledCompactRev", "finishedCompactRev"} {
			store(tx, "meta", []byte(k), revisionKey(6, 0))
		}
	})
	facts, err := etcddb.Inspect(t.Context(), path)
	must(t, err)
	if want := openHistory(t, copyFile(t, path), mvcc.StoreConfig{}, 0).hash(0); facts.HashKV != want {
		t.Fatalf("HashKV %+v, etcd says %+v", facts.HashKV, want)
	}
}

func TestHashAt_Refuses(t *testing.T) {
	path := build(t, func(tx *bolt.Tx) {
		put(tx, 5, 0, 5, 1, "a", nil)
		put(tx, 9, 0, 5, 2, "a", nil)
		store(tx, "meta", []byte("finishedCompactRev"), revisionKey(5, 0))
	})
	for name, at := range map[string][2]backup.Revision{
		"FutureRevision":   {10, 5},
		"CompactedAway":    {4, 5},
		"EarlierCompact":   {9, 4},
		"NeverCompacted":   {9, etcddb.NeverCompacted},
		"CompactAfterHash": {8, 9},
	} {
		if _, err := etcddb.HashAt(t.Context(), path, at[0], at[1]); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestLiveHash_RandomHistories bumps random histories twice, as two restores do, and asks
// etcd's own store. Some are compacted, some in the middle of it, some have no key left, and
// some were written to in between.
func TestLiveHash_RandomHistories(t *testing.T) {
	for seed := range uint64(rounds.Of(40)) {
		conf := mvcc.StoreConfig{}
		if seed%8 == 2 {
			conf = mvcc.StoreConfig{CompactionBatchLimit: 2, CompactionSleepInterval: time.Hour}
		}
		h := openHistory(t, filepath.Join(t.TempDir(), "db"), conf, seed)
		h.write(1 + h.rng.IntN(40))
		if seed%2 == 0 {
			_, err := h.store.Compact(traceutil.TODO(), 1+h.rng.Int64N(h.rev))
			must(t, err)
		}
		if seed%4 == 0 {
			h.write(h.rng.IntN(10))
		}
		if seed%8 == 7 { // no key left
			tx := h.store.Write(traceutil.TODO())
			tx.DeleteRange([]byte("a"), []byte("z"))
			tx.End()
		}
		path := h.snapshot()
		h.close()
		for round := range 2 {
			facts, err := etcddb.Inspect(t.Context(), path)
			must(t, err)
			rev := int64(facts.Revision) + 1000
			must(t, etcddb.BumpForTest(path, 1000))
			booted := openHistory(t, path, mvcc.StoreConfig{}, seed)
			want := etcddb.BumpedHash(facts.LiveHash, backup.Revision(rev))
			if got := booted.hash(rev); got != want {
				t.Fatalf("seed %d, round %d: etcd says %+v, want %+v", seed, round, got, want)
			}
			booted.write(booted.rng.IntN(5)) // the old revision can still be asked for
			if got := booted.hash(rev); got != want {
				t.Fatalf("seed %d, round %d: after writes etcd says %+v, want %+v", seed, round, got, want)
			}
			path = booted.snapshot()
			booted.close()
		}
	}
}
