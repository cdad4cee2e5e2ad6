//go:build long

package etcddb_test

import (
	"bytes"
	"math/rand/v2"
	"strings"
	"testing"

	bolt "go.etcd.io/bbolt"

	"github.com/etcd-backupd/backupd/internal/etcddb"
	"github.com/etcd-backupd/backupd/internal/testserver"
	"github.com/etcd-backupd/backupd/internal/testserver/rounds"
)

// TestLongRecordFlips flips bits of the records of a real database, and starts a server
// with all that the inspection passes, together.
func TestLongRecordFlips(t *testing.T) {
	for _, version := range strings.Fields(allVersions) {
		t.Run(version, func(t *testing.T) {
			c := testserver.StartCluster(t, testserver.Options{Version: version})
			testserver.Fill(t, c.Client(t), testserver.FillOptions{Keys: 150, ValueBytes: 8, Compact: true})
			f := newFlipper(t, version, testOtherFacts(t, c))
			rng := rand.New(rand.NewPCG(f.seed, 2))
			path := copyFile(t, databaseOf(f.dir))
			changed, refused, flips := map[string]bool{}, 0, rounds.Of(500)
			for range flips {
				before := map[string]string{}
				editDatabase(t, path, func(tx *bolt.Tx) { flipRecord(tx, rng, before) })
				if _, err := etcddb.Inspect(t.Context(), path); err == nil {
					for k := range before {
						changed[k] = true
					}
					continue
				}
				refused++
				editDatabase(t, path, func(tx *bolt.Tx) { undo(tx, before) })
			}
			t.Logf("etcd %s: %d of %d flips refused, %d records changed, seed %d", version, refused, flips, len(changed),
				f.seed)
			if refused == 0 || len(changed) == 0 {
				t.Error("this test tests nothing")
			}
			records := map[string]string{}
			editDatabase(t, path, func(tx *bolt.Tx) {
				must(t, tx.Bucket([]byte("key")).ForEach(func(k, v []byte) error {
					records[string(k)] = string(v)
					return nil
				}))
			})
			err := f.bootEdited(t, version, func(tx *bolt.Tx) {
				must(t, tx.DeleteBucket([]byte("key")))
				_, err := tx.CreateBucket([]byte("key"))
				must(t, err)
				for k, v := range records {
					store(tx, "key", []byte(k), []byte(v))
				}
			})
			if err != nil {
				t.Errorf("etcd %s does not start with records that the inspection passes (seed %d): %v", version, f.seed, err)
			}
		})
	}
}

// flipRecord flips one bit of the key or of the value of a record. before gets what was
// there under each key that changes; an empty value says that nothing was.
func flipRecord(tx *bolt.Tx, rng *rand.Rand, before map[string]string) {
	b := tx.Bucket([]byte("key"))
	var keys [][]byte
	_ = b.ForEach(func(k, _ []byte) error { keys = append(keys, bytes.Clone(k)); return nil })
	key := keys[rng.IntN(len(keys))]
	value := bytes.Clone(b.Get(key))
	before[string(key)] = string(value)
	at, mask := rng.IntN(len(key)+len(value)), byte(1)<<rng.IntN(8)
	if at >= len(key) {
		value[at-len(key)] ^= mask
		store(tx, "key", key, value)
		return
	}
	if err := b.Delete(key); err != nil {
		panic(err)
	}
	key[at] ^= mask
	before[string(key)] = string(b.Get(key))
	store(tx, "key", key, value)
}

// undo puts back what was there before.
func undo(tx *bolt.Tx, before map[string]string) {
	for k, v := range before {
		if v == "" {
			if err := tx.Bucket([]byte("key")).Delete([]byte(k)); err != nil {
				panic(err)
			}
			continue
		}
		store(tx, "key", []byte(k), []byte(v))
	}
}
