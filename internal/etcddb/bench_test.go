package etcddb_test

import (
	"os"
	"testing"

	"github.com/etcd-backupd/backupd/internal/etcddb"
)

// BenchmarkInspect includes the start of the child process.
func BenchmarkInspect(b *testing.B) {
	path := objects(b, 256<<20)
	info, err := os.Stat(path)
	must(b, err)
	b.SetBytes(info.Size())
	for b.Loop() {
		if _, err := etcddb.Inspect(b.Context(), path); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkPrepare prepares the same file again and again, which costs the same.
func BenchmarkPrepare(b *testing.B) {
	path, from := objects(b, 256<<20), membership(b)
	info, err := os.Stat(path)
	must(b, err)
	b.SetBytes(info.Size())
	for b.Loop() {
		must(b, etcddb.Prepare(b.Context(), path, etcddb.PrepareOptions{From: from}))
	}
}
