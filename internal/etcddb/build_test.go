package etcddb_test

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	bolt "go.etcd.io/bbolt"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/etcd-backupd/backupd/internal/etcddb"
)

// build makes an etcd database by calling fill and returns its path.
func build(t testing.TB, fill func(tx *bolt.Tx)) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "db")
	if err := etcddb.NewSkeleton(path); err != nil {
		t.Fatal(err)
	}
	db, err := bolt.Open(path, 0o600, &bolt.Options{NoFreelistSync: true, NoSync: true,
		FreelistType: bolt.FreelistMapType})
	if err != nil {
		t.Fatal(err)
	}
	must(t, db.Update(func(tx *bolt.Tx) error { fill(tx); return nil }))
	must(t, db.Close())
	return path
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// put stores one record as etcd does.
func put(tx *bolt.Tx, main, sub, create, version int64, key string, value []byte) {
	v := protowire.AppendTag(nil, 1, protowire.BytesType)
	v = protowire.AppendString(v, key)
	for i, n := range []int64{create, main, version} {
		v = protowire.AppendTag(v, protowire.Number(2+i), protowire.VarintType)
		v = protowire.AppendVarint(v, uint64(n))
	}
	v = protowire.AppendTag(v, 5, protowire.BytesType)
	v = protowire.AppendBytes(v, value)
	store(tx, "key", revisionKey(main, sub), v)
}

func tombstone(tx *bolt.Tx, main, sub int64, key string) {
	v := protowire.AppendTag(nil, 1, protowire.BytesType)
	store(tx, "key", append(revisionKey(main, sub), 't'), protowire.AppendString(v, key))
}

func revisionKey(main, sub int64) []byte {
	k := binary.BigEndian.AppendUint64(nil, uint64(main))
	return binary.BigEndian.AppendUint64(append(k, '_'), uint64(sub))
}

func store(tx *bolt.Tx, bucket string, key, value []byte) {
	b := tx.Bucket([]byte(bucket))
	b.FillPercent = 0.9
	if err := b.Put(key, value); err != nil {
		panic(err)
	}
}

// objects fills a database with what looks like Kubernetes objects: total
// bytes of values of 500 to 4000 bytes, every fifth an update.
func objects(t testing.TB, total int64) string {
	rng := rand.New(rand.NewPCG(1, 2))
	noise := make([]byte, 1<<16)
	for i := range noise {
		noise[i] = byte(rng.Uint32())
	}
	path := build(t, func(*bolt.Tx) {})
	db, err := bolt.Open(path, 0o600, &bolt.Options{NoFreelistSync: true, NoSync: true,
		FreelistType: bolt.FreelistMapType})
	must(t, err)
	rev, keys := int64(1), int64(0)
	for total > 0 {
		must(t, db.Update(func(tx *bolt.Tx) error {
			for range 5000 {
				rev++
				n, at := 500+rng.IntN(3500), rng.IntN(1<<15)
				create, version, id := rev, int64(1), keys
				if keys > 10 && rng.IntN(5) == 0 {
					id, create, version = rng.Int64N(keys), rev-1, 2
				} else {
					keys++
				}
				put(tx, rev, 0, create, version, fmt.Sprintf("/registry/pods/namespace-%d/pod-%09d", id%100, id),
					noise[at:at+n])
				total -= int64(n)
			}
			return nil
		}))
	}
	must(t, db.Close())
	return path
}

// snapshotOf makes a snapshot file out of a database file, as a server does.
func snapshotOf(t testing.TB, path string) string {
	t.Helper()
	db, err := bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true})
	must(t, err)
	out := filepath.Join(t.TempDir(), "snapshot.db")
	must(t, db.View(func(tx *bolt.Tx) error { return tx.CopyFile(out, 0o600) }))
	must(t, db.Close())
	seal(t, out)
	return out
}

// seal appends the SHA-256 trailer.
func seal(t testing.TB, path string) {
	t.Helper()
	data, err := os.ReadFile(path)
	must(t, err)
	sum := sha256.Sum256(data)
	must(t, os.WriteFile(path, append(data, sum[:]...), 0o600))
}

// membership makes a database like etcdutl's code makes out of a skeleton.
func membership(t testing.TB) string {
	t.Helper()
	return build(t, func(tx *bolt.Tx) {
		store(tx, "meta", []byte("consistent_index"), []byte("12345678"))
		store(tx, "meta", []byte("term"), []byte("12345678"))
	})
}
