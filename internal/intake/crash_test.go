package intake_test

import (
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/intake"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest/mem"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

var errFault = errors.New("the store is on fire")

// TestCrash_Import fails each operation of the store in turn. What is listed then is whole, what is
// told as stored is pinned, and the same command again leaves one snapshot, not two.
func TestCrash_Import(t *testing.T) {
	c, dir := testserver.StartCluster(t, testserver.Options{}), t.TempDir()
	file := save(t, c, name(dir, "etcd.db"))
	for _, when := range []storagetest.When{storagetest.After, storagetest.Crash} {
		unpinned := 0
		for n := 0; ; n++ {
			s := mem.New()
			to := part(t, s, "prod")
			faulty := storagetest.FailAt(s, n, when, errFault)
			done, err := importFile(t, importer(t, at(faulty, to)), file)
			if err == nil != (done.Manifest != nil && done.Pinned) || err != nil && !errors.Is(err, errFault) {
				t.Fatalf("operation %d, %v: %+v, %v", n, when, done, err)
			}
			if err != nil && !errors.As(err, new(*intake.StoreError)) {
				t.Errorf("operation %d, %v: %v is no failure of the repository", n, when, err)
			}
			before := listed(t, to)
			again, err := importFile(t, importer(t, to), file)
			ids := listed(t, to)
			if err != nil || len(ids) != 1 || ids[0] != again.Manifest.ID || again.Present != (len(before) == 1) {
				t.Fatalf("operation %d, %v: again: %v, %+v, %v", n, when, err, again, ids)
			}
			if !again.Pinned {
				unpinned++
			}
			verified(t, to, again.Manifest)
			if !faulty.Fired() {
				if n < 8 {
					t.Errorf("%d operations", n)
				}
				break
			}
		}
		if unpinned == 0 && when == storagetest.Crash {
			t.Error("no crash was between the manifest and the pin")
		}
	}
}

// TestImport_SameMoment: of two processes that begin the same cluster at least the one that is later
// says so.
func TestImport_SameMoment(t *testing.T) {
	c, dir := testserver.StartCluster(t, testserver.Options{}), t.TempDir()
	file := save(t, c, name(dir, "etcd.db"))
	to := part(t, mem.New(), "prod")
	one, other := importer(t, to), importer(t, to)
	once := sync.OnceFunc(func() { imported(t, other, file) })
	one.Taker.Progress = func(s backup.Stage, _, _ int64) {
		if s == backup.StageStore {
			once()
		}
	}
	_, err := importFile(t, one, file)
	if !errors.As(err, new(*backup.RefusedError)) || !strings.Contains(err.Error(), "another process has begun history") {
		t.Errorf("two at the same moment: %v", err)
	}
}
