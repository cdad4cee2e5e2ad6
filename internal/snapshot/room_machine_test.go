//go:build machine

package snapshot_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/disk"
	"github.com/etcd-backupd/backupd/internal/snapshot"
	"github.com/etcd-backupd/backupd/internal/storage"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest/mem"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// reserved is kept free on a small file system.
const reserved = 16 << 20

// smallDisk is a file system of 64 MiB and 64 files.
func smallDisk(t *testing.T) string {
	t.Helper()
	testserver.Root(t)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64m,nr_inodes=64,mode=0700"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// fill leaves so many bytes free.
func fill(t *testing.T, dir string, free int64) {
	t.Helper()
	fs, err := disk.FileSystemOf(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "others"), make([]byte, fs.Free-free), 0o600); err != nil {
		t.Fatal(err)
	}
}

func wantGaveWay(t *testing.T, dir string, err error) {
	t.Helper()
	var hint *backup.HintError
	if !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), "the spool gave way") || !errors.As(err, &hint) {
		t.Errorf("got %v", err)
	}
	if err := os.Remove(filepath.Join(dir, "others")); err != nil {
		t.Error(err)
	}
	wantEmpty(t, dir)
}

// TestMachine_RoomStream: a stream stops that crosses the reserve, also if it stands
// still, and its spool is gone.
func TestMachine_RoomStream(t *testing.T) {
	dir, db := smallDisk(t), realDatabase(t)
	taker := keeper(t, startFakes(t, db, testserver.StallAfter(db.raw, 8192)).urls[0], mem.New(), dir)
	taker.Spool.MinFree = disk.ReserveOf(reserved)
	at(taker, backup.StageReceive, func() { fill(t, dir, reserved-1<<20) })
	_, err := taker.Take(t.Context())
	wantGaveWay(t, dir, err)
}

// TestMachine_RoomUpload: a complete spool stays while it is stored, until a quarter of
// the reserve is gone. Then it goes too, and nothing of it is stored or waits.
func TestMachine_RoomUpload(t *testing.T) {
	dir, db := smallDisk(t), realDatabase(t)
	s := mem.New()
	slow := &storagetest.Hook{Store: s, Before: func(ctx context.Context, op storage.Op, key string) error {
		if op != storage.OpCreate || !isData(key) {
			return nil
		}
		testserver.Eventually(t, "the database is received", func() bool {
			found, err := filepath.Glob(filepath.Join(dir, "*.pending.json"))
			return err == nil && len(found) == 1
		})
		fill(t, dir, reserved*3/4-1<<20)
		<-ctx.Done()
		return context.Cause(ctx)
	}}
	taker := keeper(t, startFakes(t, db, testserver.GoodSnapshot(db.raw)).urls[0], slow, dir)
	taker.Spool.MinFree = disk.ReserveOf(reserved)
	_, err := taker.Take(t.Context())
	wantGaveWay(t, dir, err)
	if errors.As(err, new(*snapshot.PendingError)) || len(entries(t, s)) != 0 {
		t.Errorf("got %v; stored %v", err, entries(t, s))
	}
}

// TestMachine_RoomVerify: a verification stops too, and says nothing about the snapshot.
func TestMachine_RoomVerify(t *testing.T) {
	dir, db := smallDisk(t), realDatabase(t)
	s := mem.New()
	m := take(t, newTaker(t, connect(t, startFakes(t, db, testserver.GoodSnapshot(db.raw)).urls[0]), s))
	v := newVerifier(s, "prod", dir)
	v.Spool.MinFree = disk.ReserveOf(reserved)
	v.Progress = func(stage backup.Stage, done, _ int64) {
		if stage != backup.StageInspect || done > 0 {
			return
		}
		fill(t, dir, reserved)
		testserver.Eventually(t, "the copy is emptied", func() bool {
			found, err := filepath.Glob(filepath.Join(dir, "*.spool"))
			if err != nil || len(found) != 1 {
				return false
			}
			info, err := os.Stat(found[0])
			return err == nil && info.Size() == 0
		})
	}
	_, err := v.Verify(t.Context(), item(m))
	if errors.As(err, new(*backup.DefectError)) || errors.Is(err, backup.ErrCorrupt) {
		t.Errorf("the snapshot is called damaged: %v", err)
	}
	wantGaveWay(t, dir, err)
}

// TestMachine_Inodes: a file system that can hold no more files refuses a new snapshot,
// with a clear error. What waits there is not lost.
func TestMachine_Inodes(t *testing.T) {
	dir, db := smallDisk(t), realDatabase(t)
	f := startFakes(t, db, testserver.GoodSnapshot(db.raw))
	s := mem.New()
	taker := keeper(t, f.urls[0], s, dir)
	taker.Spool.MinFree = disk.ReserveOf(reserved)
	outage(t, taker)
	streams := f.streams.Load()
	for i := 0; ; i++ {
		err := os.WriteFile(filepath.Join(dir, fmt.Sprint("other", i)), nil, 0o600)
		if errors.Is(err, unix.ENOSPC) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	down := storagetest.FailAt(s, 4, storagetest.Before, errFault)
	if _, err := storePending(t, down, dir); !errors.Is(err, errFault) || len(pending(t, dir)) != 1 {
		t.Errorf("with the store down: got %v, pending %v", err, pending(t, dir))
	}
	_, err := taker.Take(t.Context()) // which first stores what waits
	var hint *backup.HintError
	if !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), "has room for only ") ||
		!errors.As(err, &hint) || !strings.Contains(hint.Hint, "df -i") || f.streams.Load() != streams {
		t.Errorf("got %v, %d streams", err, f.streams.Load()-streams)
	}
	if all := entries(t, s); len(all) != 1 || len(pending(t, dir)) != 0 {
		t.Errorf("stored %v, pending %v", all, pending(t, dir))
	}
}
