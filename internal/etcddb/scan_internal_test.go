package etcddb

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	bolt "go.etcd.io/bbolt"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"

	"github.com/etcd-backupd/backupd/internal/etcddb/buckets"
)

// history is a database whose records are known one by one.
type history struct {
	keys, pairs [][]byte // of each record: its key of etcd, and the pair of the bucket
	tombstone   []bool
	compact     int64
	bumped      int // this record is without content; 0: none is
}

// grow makes records: at first keys that nobody writes again, so that whole runs are live, then
// some that are written and deleted again and again, and some more that are left alone.
func grow(t *testing.T, seed uint64) *history {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 1))
	h := &history{compact: []int64{0, 700, 1400, 2400}[seed%4]}
	if seed%3 == 0 {
		h.bumped = 2100
	}
	for n := range 2400 {
		rev := int64(n) + 2
		kv := &mvccpb.KeyValue{Key: fmt.Appendf(nil, "/registry/secrets/%d", n), CreateRevision: rev, ModRevision: rev,
			Version: 1, Value: fmt.Appendf(nil, "k8s:enc:aescbc:v1:key%d:%s", n%2, bytes.Repeat([]byte{'v'}, rng.IntN(900)))}
		dead := false
		if n > 900 && n < 1500 || n%500 == 0 {
			kv.Key = fmt.Appendf(nil, "/registry/secrets/again/%d", rng.IntN(200))
			dead = rng.IntN(3) == 0
		}
		key := appendRevision(nil, rev)
		switch {
		case n > 0 && n == h.bumped:
			kv.Reset()
		case dead:
			key, kv = append(key, 't'), &mvccpb.KeyValue{Key: kv.Key}
		}
		value, err := proto.Marshal(kv)
		if err != nil {
			t.Fatal(err)
		}
		h.keys, h.tombstone = append(h.keys, kv.Key), append(h.tombstone, len(key) > recordKeyBytes)
		h.pairs = append(h.pairs, append(key, value...))
	}
	return h
}

func (h *history) write(t *testing.T) *image {
	t.Helper()
	path := filepath.Join(t.TempDir(), "db")
	db, err := bolt.Open(path, 0o600, &bolt.Options{PageSize: 4096, NoFreelistSync: true, NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bolt.Tx) error {
		for _, name := range allBuckets {
			if _, err := tx.CreateBucketIfNotExists([]byte(name)); err != nil {
				return err
			}
		}
		for i, pair := range h.pairs {
			n := recordKeyBytes
			if h.tombstone[i] {
				n++
			}
			if err := tx.Bucket([]byte(keyBucket)).Put(pair[:n], pair[n:]); err != nil {
				return err
			}
		}
		if h.compact == 0 {
			return nil
		}
		return tx.Bucket([]byte(buckets.Meta)).Put([]byte(buckets.FinishedCompact), appendRevision(nil, h.compact))
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return openBytes(t, data)
}

// TestInspect_Runs: the sums of runs of records are those of the records one by one, wherever
// some do not take part.
func TestInspect_Runs(t *testing.T) {
	for seed := range uint64(12) {
		h := grow(t, seed)
		newest := map[string]int{}
		for n, key := range h.keys {
			newest[string(key)] = n
		}
		kv, objects := crc32.Checksum([]byte(keyBucket), castagnoli), int64(0)
		live := kv
		for n, pair := range h.pairs {
			exists := newest[string(h.keys[n])] == n && !h.tombstone[n]
			if exists || int64(n)+2 > h.compact {
				kv = crc32.Update(kv, castagnoli, pair)
			}
			if exists && (n == 0 || n != h.bumped) {
				live, objects = crc32.Update(live, castagnoli, pair), objects+1
			}
		}
		im := h.write(t)
		beside, err := inspect(im)
		if err != nil {
			t.Fatal(err)
		}
		im.guard = nil
		after, err := inspect(im)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range []*Facts{beside, after} {
			counted := int64(0)
			for _, k := range f.Kubernetes.Keys {
				counted += k.Objects
			}
			if f.HashKV.Hash != kv || f.LiveHash != live || f.Kubernetes.Objects != objects || counted != objects {
				t.Errorf("seed %d: HashKV %08x, live %08x, %d objects, %d with keys; want %08x, %08x, %d", seed,
					f.HashKV.Hash, f.LiveHash, f.Kubernetes.Objects, counted, kv, live, objects)
			}
		}
		if beside.StatusHash != after.StatusHash {
			t.Errorf("seed %d: status hash %08x or %08x", seed, beside.StatusHash, after.StatusHash)
		}
	}
}
