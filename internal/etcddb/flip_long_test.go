//go:build long

package etcddb_test

import (
	"slices"
	"strings"
	"testing"

	bolt "go.etcd.io/bbolt"

	"github.com/etcd-backupd/backupd/internal/testserver"
)

// TestLongFlips flips each bit of each byte of the small buckets of a real database, and
// starts servers with those that the inspection passes.
func TestLongFlips(t *testing.T) {
	for _, version := range strings.Fields(allVersions) {
		t.Run(version, func(t *testing.T) {
			c := testserver.StartCluster(t, testserver.Options{Version: version})
			testserver.Fill(t, c.Client(t), testserver.FillOptions{Keys: 150, Compact: true})
			f := newFlipper(t, version, testOtherFacts(t, c))
			var passed []flip
			refused := 0
			f.each(func(fl flip) {
				for bit := range 8 {
					fl.mask = 1 << bit
					if entries := f.with(fl); entries != nil && judge(entries) == nil {
						passed = append(passed, fl)
					} else {
						refused++
					}
				}
			})
			f.testAll(t, passed)
			t.Logf("etcd %s: %d flips refused, %d passed and started by %d servers", version, refused, len(passed), f.boots)
			if refused == 0 || len(passed) == 0 {
				t.Error("this test tests nothing")
			}
		})
	}
}

// TestLongSmallDefects: no defect is one that a server starts with, but for those where it
// does something else then.
func TestLongSmallDefects(t *testing.T) {
	for _, version := range strings.Fields(allVersions) {
		c := testserver.StartCluster(t, testserver.Options{Version: version})
		testserver.Fill(t, c.Client(t), testserver.FillOptions{Keys: 150})
		f := newFlipper(t, version, testOtherFacts(t, c))
		for _, d := range smallDefects(t) {
			err := f.bootEdited(t, version, d.put)
			if want := slices.Contains(strings.Fields(d.starts), version); (err == nil) != want {
				t.Errorf("%s: etcd %s starts %v, want %v (%s): %v", d.name, version, err == nil, want, d.act, err)
			}
		}
		err := f.bootEdited(t, version, badRole)
		if want := version < "3.7"; (err == nil) != want {
			t.Errorf("etcd %s starts %v with a name that is no UTF-8, want %v: %v", version, err == nil, want, err)
		}
		err = f.bootEdited(t, version, func(tx *bolt.Tx) {
			put(tx, 1<<40, 0, 1<<40, 1, "k", nil)
			tombstone(tx, 1<<40, 0, "k")
		})
		if err == nil {
			t.Errorf("etcd %s starts with a put and a tombstone of one key at one revision", version)
		}
	}
}
