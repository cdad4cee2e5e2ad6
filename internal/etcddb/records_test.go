package etcddb_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"testing"

	bolt "go.etcd.io/bbolt"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/etcddb"
)

// pagesRead counts the pages that are read of a database.
type pagesRead struct {
	*bytes.Reader
	n int
}

func (p *pagesRead) ReadAt(b []byte, off int64) (int, error) {
	p.n++
	return p.Reader.ReadAt(b, off)
}

// manyRecords makes a database with three levels of pages, large values and tombstones, and
// returns it with its records, in their order.
func manyRecords(t *testing.T) (raw []byte, want []etcddb.Record) {
	t.Helper()
	path := build(t, func(tx *bolt.Tx) {
		for i := int64(2); i < 9000; i += 2 {
			size := 200
			if i%1000 == 0 {
				size = 20_000 // pages that overflow
			}
			put(tx, i, 0, i, 1, "key", make([]byte, size))
			put(tx, i, 1, i, 1, "other", nil)
			if i%10 == 0 {
				tombstone(tx, i+1, 0, "key")
			}
		}
	})
	db, err := bolt.Open(path, 0o600, &bolt.Options{ReadOnly: true})
	must(t, err)
	must(t, db.View(func(tx *bolt.Tx) error {
		return tx.Bucket([]byte("key")).ForEach(func(k, v []byte) error {
			want = append(want, etcddb.Record{
				Revision: backup.Revision(binary.BigEndian.Uint64(k)), Sub: int64(binary.BigEndian.Uint64(k[9:])),
				Tombstone: len(k) == 18, Raw: bytes.Clone(v),
			})
			return nil
		})
	}))
	must(t, db.Close())
	raw, err = os.ReadFile(path)
	must(t, err)
	return raw, want
}

func same(a, b etcddb.Record) bool {
	return a.Revision == b.Revision && a.Sub == b.Sub && a.Tombstone == b.Tombstone && bytes.Equal(a.Raw, b.Raw)
}

// TestRecords finds what bbolt finds, from any revision on, and reads few pages for it.
func TestRecords(t *testing.T) {
	raw, want := manyRecords(t)
	pages := &pagesRead{Reader: bytes.NewReader(raw)}
	r, err := etcddb.OpenRecords(pages, int64(len(raw)))
	must(t, err)
	var all []etcddb.Record
	must(t, r.From(0, func(x etcddb.Record) bool { all = append(all, x); return true }))
	if len(all) != len(want) || len(all) < 9000 {
		t.Fatalf("%d records, bbolt finds %d", len(all), len(want))
	}
	for i := range all {
		if !same(all[i], want[i]) {
			t.Fatalf("record %d: %+v, want %+v", i, all[i], want[i])
		}
	}
	rng := rand.New(rand.NewPCG(8, 9))
	for range 200 {
		from := backup.Revision(1 + rng.IntN(9100))
		var got *etcddb.Record
		pages.n = 0
		must(t, r.From(from, func(x etcddb.Record) bool { got = &x; return false }))
		i := 0
		for i < len(want) && want[i].Revision < from {
			i++
		}
		if i == len(want) && got != nil || i < len(want) && (got == nil || !same(*got, want[i])) {
			t.Fatalf("from %d: got %+v", from, got)
		}
		if pages.n > 8 {
			t.Errorf("from %d: %d pages were read", from, pages.n)
		}
	}
}

// TestRecords_Damage: a damaged page is an error that names damage, and none that ends the process.
func TestRecords_Damage(t *testing.T) {
	raw, want := manyRecords(t)
	rng := rand.New(rand.NewPCG(10, 11))
	found := 0
	for range 150 {
		damaged := bytes.Clone(raw)
		page := rng.IntN(len(raw)/4096) * 4096
		damaged[page+rng.IntN(64)] ^= 1 << rng.IntN(8) // a header, or where the elements are
		r, err := etcddb.OpenRecords(bytes.NewReader(damaged), int64(len(damaged)))
		n := 0
		if err == nil {
			err = r.From(0, func(etcddb.Record) bool { n++; return true })
		}
		if err != nil && !errors.Is(err, backup.ErrCorrupt) {
			t.Errorf("page %d: %v", page/4096, err)
		}
		if err != nil {
			found++
		} else if n != len(want) {
			t.Errorf("page %d: %d records and no error", page/4096, n)
		}
	}
	if found < 40 {
		t.Errorf("only %d of 150 were found", found)
	}
	for _, n := range []int{0, 100, 4096, len(raw) / 2} {
		if _, err := etcddb.OpenRecords(bytes.NewReader(raw[:n]), int64(n)); !errors.Is(err, backup.ErrCorrupt) {
			t.Errorf("cut to %d bytes: %v", n, err)
		}
	}
	cut := errors.New("connection reset")
	r, err := etcddb.OpenRecords(failsLater{bytes.NewReader(raw), cut}, int64(len(raw)))
	if err == nil {
		err = r.From(0, func(etcddb.Record) bool { return true })
	}
	if !errors.Is(err, cut) || errors.Is(err, backup.ErrCorrupt) {
		t.Errorf("got %v, want the error of the reader", err)
	}
}

// failsLater fails behind its first half.
type failsLater struct {
	*bytes.Reader
	err error
}

func (f failsLater) ReadAt(b []byte, off int64) (int, error) {
	if off > f.Size()/2 {
		return 0, f.err
	}
	return f.Reader.ReadAt(b, off)
}
