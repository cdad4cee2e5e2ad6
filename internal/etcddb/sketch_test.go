package etcddb_test

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"path/filepath"
	"slices"
	"testing"

	"github.com/cespare/xxhash/v2"
	bolt "go.etcd.io/bbolt"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/pkg/v3/traceutil"
	"go.etcd.io/etcd/server/v3/lease"
	"go.etcd.io/etcd/server/v3/storage/mvcc"
	"google.golang.org/protobuf/proto"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/etcddb"
	"github.com/etcd-backupd/backupd/internal/testserver/rounds"
)

// liveKeys reads a database with bbolt: every live key, in the order of the records.
func liveKeys(t testing.TB, path string) []backup.SketchEntry {
	t.Helper()
	type live struct {
		record []byte
		entry  backup.SketchEntry
	}
	all := map[string]live{}
	db, err := bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true})
	must(t, err)
	must(t, db.View(func(tx *bolt.Tx) error {
		return tx.Bucket([]byte("key")).ForEach(func(k, v []byte) error {
			var kv mvccpb.KeyValue
			if err := proto.Unmarshal(v, &kv); err != nil {
				return err
			}
			if len(k) == 18 {
				delete(all, string(kv.Key))
				return nil
			}
			sum := sha256.Sum256(append(bytes.Clone(k), v...))
			all[string(kv.Key)] = live{bytes.Clone(k), backup.SketchEntry{
				Key: xxhash.Sum64(kv.Key), Mod: backup.Revision(binary.BigEndian.Uint64(k)),
				Create: backup.Revision(kv.CreateRevision), Digest: binary.BigEndian.Uint64(sum[:]),
			}}
			return nil
		})
	}))
	must(t, db.Close())
	var list []live
	for _, l := range all {
		list = append(list, l)
	}
	slices.SortFunc(list, func(a, b live) int { return bytes.Compare(a.record, b.record) })
	var out []backup.SketchEntry
	for _, l := range list {
		out = append(out, l.entry)
	}
	return out
}

// wantSketch selects from all live keys.
func wantSketch(all []backup.SketchEntry) (want backup.Sketch) {
	want.Limit = backup.NoLimit
	want.Recent = all
	if n := len(all) - backup.MaxSketchEntries; n > 0 {
		want.Recent, want.From = all[n:], all[n-1].Mod+1
	}
	want.Recent = slices.SortedFunc(slices.Values(want.Recent), backup.ByRevision)
	want.Sample = slices.SortedFunc(slices.Values(all), backup.ByHash)
	if len(all) > backup.MaxSketchEntries {
		want.Limit = want.Sample[backup.MaxSketchEntries].Key
		want.Sample = want.Sample[:backup.MaxSketchEntries]
	}
	return want
}

// writeMany commits n transactions of up to width puts and deletes on many keys.
func (h *history) writeMany(n, width, keys int, deletes float64) {
	for range n {
		tx := h.store.Write(traceutil.TODO())
		used := map[int]bool{}
		for range 1 + h.rng.IntN(width) {
			i := h.rng.IntN(keys)
			if used[i] {
				continue // etcd refuses to write a key twice in a transaction
			}
			used[i] = true
			if key := fmt.Appendf(nil, "key-%d", i); h.rng.Float64() < deletes {
				tx.DeleteRange(key, nil)
			} else {
				tx.Put(key, fmt.Appendf(nil, "value-%d", h.rng.Uint32()), lease.LeaseID(h.rng.IntN(3)))
			}
		}
		h.rev = tx.Rev()
		if len(tx.Changes()) > 0 {
			h.rev++
		}
		tx.End()
	}
}

// bump stores the record without content that etcdutl's --bump-revision stores.
func bump(t testing.TB, path string, rev int64) {
	t.Helper()
	db, err := bolt.Open(path, 0o600, nil)
	must(t, err)
	must(t, db.Update(func(tx *bolt.Tx) error {
		store(tx, "key", revisionKey(rev, 0), nil)
		store(tx, "meta", []byte("scheduledCompactRev"), revisionKey(rev, 0))
		return nil
	}))
	must(t, db.Close())
}

// TestSketch_RandomHistories compares with all live keys over random histories of
// etcd's own store.
func TestSketch_RandomHistories(t *testing.T) {
	seen := map[string]int{}
	for seed := range uint64(rounds.Of(60)) {
		h := openHistory(t, filepath.Join(t.TempDir(), "db"), mvcc.StoreConfig{}, seed)
		keys := []int{10, 200, 300, 3000}[seed%4]
		width := []int{1, 40, 600}[seed%3]
		h.writeMany(1+h.rng.IntN(2*keys/width+20), width, keys, []float64{0, 0.2, 0.7}[h.rng.IntN(3)])
		if h.rng.IntN(2) == 0 {
			h.compact(1 + h.rng.Int64N(h.rev))
			h.writeMany(h.rng.IntN(10), width, keys, 0.3)
		}
		path := h.snapshot()
		h.close()
		if seed%5 == 0 {
			bump(t, path, h.rev+1+h.rng.Int64N(1000))
			seen["bumped"]++
		}
		facts, err := etcddb.Inspect(t.Context(), path)
		must(t, err)
		all := liveKeys(t, path)
		if want := wantSketch(all); !sameSketch(facts.Sketch, want) || int64(len(all)) != facts.TotalKeys {
			t.Fatalf("seed %d: %d keys, sketch %+v, want %d and %+v", seed, facts.TotalKeys, facts.Sketch, len(all), want)
		}
		must(t, facts.Sketch.Validate())
		seen["whole sample"] += btoi(facts.Sketch.Limit == backup.NoLimit)
		seen["limit"] += btoi(facts.Sketch.Limit != backup.NoLimit)
		seen["cut transaction"] += btoi(facts.Sketch.From > 0 && facts.Sketch.From > facts.Sketch.Recent[0].Mod)
		seen["whole transaction"] += btoi(facts.Sketch.From > 0 && facts.Sketch.From <= facts.Sketch.Recent[0].Mod)
	}
	for _, what := range []string{"bumped", "whole sample", "limit", "cut transaction", "whole transaction"} {
		if seen[what] == 0 && rounds.Of(100) >= 100 {
			t.Errorf("no history had a sketch with %s: %v", what, seen)
		}
	}
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// sameSketch takes no list and an empty list as equal.
func sameSketch(a, b backup.Sketch) bool {
	return a.Limit == b.Limit && a.From == b.From && slices.Equal(a.Sample, b.Sample) &&
		slices.Equal(a.Recent, b.Recent)
}

// TestSketch_ManyKeys: with more keys than fit in memory, and keys that are deleted
// after they have kept others out, a sketch still keeps its promises.
func TestSketch_ManyKeys(t *testing.T) {
	const keys = 15_000
	for _, c := range []struct {
		left, more, sampled int // more records of 200 keys come after the others were deleted
	}{{keys, 0, 256}, {keys / 2, 0, 256}, {1000, 0, 20}, {1000, 300, 20}, {100, 0, 1}, {0, 0, 0}} {
		t.Run(fmt.Sprint(c.left, c.more), func(t *testing.T) {
			h := openHistory(t, filepath.Join(t.TempDir(), "db"), mvcc.StoreConfig{}, 1)
			for from := 0; from < keys; from += 100 {
				tx := h.store.Write(traceutil.TODO())
				for i := range 100 {
					tx.Put(fmt.Appendf(nil, "key-%05d", from+i), []byte("value"), lease.NoLease)
				}
				tx.End()
			}
			tx := h.store.Write(traceutil.TODO())
			tx.DeleteRange(fmt.Appendf(nil, "key-%05d", c.left), []byte("z"))
			tx.End()
			for i := range c.more {
				tx := h.store.Write(traceutil.TODO())
				tx.Put(fmt.Appendf(nil, "more-%d", i%200), []byte("value"), lease.NoLease)
				tx.End()
			}
			path := h.snapshot()
			h.close()
			facts, err := etcddb.Inspect(t.Context(), path)
			must(t, err)
			all, got := liveKeys(t, path), facts.Sketch
			if len(all) != c.left+min(c.more, 200) || got.Limit == backup.NoLimit || len(got.Sample) < c.sampled {
				t.Fatalf("%d keys, %d of them in the sample, limit %x", len(all), len(got.Sample), got.Limit)
			}
			want := wantSketch(all)
			want.Limit = got.Limit
			want.Sample = slices.SortedFunc(slices.Values(all), backup.ByHash)
			n, _ := slices.BinarySearchFunc(want.Sample, got.Limit, func(e backup.SketchEntry, limit uint64) int {
				return cmp.Compare(e.Key, limit)
			})
			want.Sample = want.Sample[:n]
			if !sameSketch(got, want) {
				t.Errorf("sketch %+v, want %+v", got, want)
			}
			must(t, got.Validate())
		})
	}
}

// TestSketch_Bytes is the example of docs/format.md: a database has the same sketch
// for ever.
func TestSketch_Bytes(t *testing.T) {
	path := build(t, func(tx *bolt.Tx) {
		put(tx, 2, 0, 2, 1, "abc", []byte("x"))
		put(tx, 3, 0, 3, 1, "gone", nil)
		tombstone(tx, 4, 0, "gone")
	})
	facts, err := etcddb.Inspect(t.Context(), path)
	must(t, err)
	raw, err := json.Marshal(facts.Sketch)
	must(t, err)
	const want = `{"sample":"RLws9a13CZlRzTVCF/607wIA","from":0,"recent":"RLws9a13CZlRzTVCF/607wIA"}`
	if string(raw) != want {
		t.Errorf("sketch %s, want %s", raw, want)
	}
	if list := facts.Sketch.Sample; len(list) != 1 || list[0].Key != 0x44bc2cf5ad770999 {
		t.Errorf("sample %x", list)
	}
	bump(t, path, 9)
	facts, err = etcddb.Inspect(t.Context(), path)
	must(t, err)
	if list := facts.Sketch.Recent; len(list) != 2 || list[1].Key != 0xef46db3751d8e999 || list[1].Mod != 9 {
		t.Errorf("recent %x", list)
	}
}
