package etcddb

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	bolt "go.etcd.io/bbolt"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"google.golang.org/protobuf/proto"
)

// TestKeptOf: the same records are kept, however few keys are remembered at once.
func TestKeptOf(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	db, err := bolt.Open(path, 0o600, &bolt.Options{NoFreelistSync: true, NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	rng, keys := rand.New(rand.NewPCG(7, 7)), map[string]bool{}
	err = db.Update(func(tx *bolt.Tx) error {
		b, err := tx.CreateBucket([]byte(keyBucket))
		if err != nil {
			return err
		}
		for rev := int64(2); rev < 3000; rev++ {
			kv := &mvccpb.KeyValue{Key: fmt.Appendf(nil, "key-%d", rng.IntN(900))}
			key := appendRevision(nil, rev)
			if rng.IntN(4) == 0 {
				key = append(key, 't')
			} else {
				kv.CreateRevision, kv.ModRevision, kv.Version = rev, rev, 1
			}
			keys[string(kv.Key)] = len(key) == recordKeyBytes
			value, err := proto.Marshal(kv)
			if err != nil {
				return err
			}
			if err := b.Put(key, value); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := db.Close(); err != nil {
		t.Fatal(err)
	}
	exist := uint64(0)
	for _, exists := range keys {
		if exists {
			exist++
		}
	}
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close() // only read from
	err = withImage(file, func(im *image) error {
		all, err := newWalker(im, ascending).buckets()
		if err != nil {
			return err
		}
		for _, to := range []int64{1000, math.MaxInt64} {
			want, alive, err := keptOf(im, &all[0], to, to, math.MaxInt)
			if err != nil || !alive {
				t.Fatal(err)
			}
			for _, atOnce := range []int{20, 100, 1000} {
				got, alive, err := keptOf(im, &all[0], to, to, atOnce)
				if err != nil || !alive || !reflect.DeepEqual(got, want) {
					t.Errorf("%d at once, to %d: %v, %d of %d records, want %d of %d", atOnce, to, err, got.kept, got.old,
						want.kept, want.old)
				}
			}
			if to == math.MaxInt64 && want.kept != exist {
				t.Errorf("%d records are kept, and %d keys exist", want.kept, exist)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
