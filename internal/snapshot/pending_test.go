package snapshot_test

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/disk"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/snapshot"
	"github.com/etcd-backupd/backupd/internal/spool"
	"github.com/etcd-backupd/backupd/internal/storage"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest/mem"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// keeper returns a taker whose folder keeps pending snapshots.
func keeper(t *testing.T, endpoint string, s storage.Store, folder string) *taker {
	t.Helper()
	taker := newTaker(t, connect(t, endpoint), s)
	taker.Spool = spool.Folder{Dir: folder, Keep: true, MinFree: disk.ReserveOf(0)}
	return taker
}

// pending returns the pending snapshots in the folder.
func pending(t *testing.T, folder string) []spool.Pending {
	t.Helper()
	dir := spool.Folder{Dir: folder}
	all, err := dir.Waiting()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// outage takes a snapshot while the store is down, and checks that it stays
// pending.
func outage(t *testing.T, taker *taker) spool.Pending {
	t.Helper()
	repo, err := repository.Create(t.Context(), taker.store)
	if err != nil {
		t.Fatal(err)
	}
	inner := taker.store
	defer func() { taker.store, taker.down = inner, nil }()
	taker.store, taker.id, taker.down = failingStore(t), repo.ID(), errFault
	var kept *snapshot.PendingError
	if _, err := taker.Take(t.Context()); !errors.As(err, &kept) || !errors.Is(err, errFault) {
		t.Fatalf("with the store down: got %v, want a PendingError", err)
	}
	return kept.Pending
}

// failingStore fails the test when it is asked for anything.
func failingStore(t *testing.T) storage.Store {
	return storage.WithObserver(storagetest.FailAt(mem.New(), 0, storagetest.Crash, errFault), func(e storage.Event) {
		t.Errorf("a repository that is down was asked: %s %s", e.Op, e.Key)
	})
}

// storePending stores the pending snapshots, with no member of the cluster alive.
func storePending(t *testing.T, s storage.Store, folder string) ([]*backup.Manifest, error) {
	t.Helper()
	return keeper(t, testserver.FreeURL(t), s, folder).StorePending(t.Context())
}

// wantStored stores the pending snapshots and checks that nothing else is stored.
func wantStored(t *testing.T, s storage.Store, folder string, n int) []*backup.Manifest {
	t.Helper()
	stored, err := storePending(t, s, folder)
	if err != nil || len(stored) != n {
		t.Fatalf("got %d manifests and %v, want %d", len(stored), err, n)
	}
	for _, m := range stored {
		if err := verify(t, s, m); err != nil {
			t.Error(err)
		}
	}
	wantEmpty(t, folder)
	return stored
}

// TestPending_Crash fails each operation of the store in turn while a snapshot is
// taken. The received database is stored later, once, with etcd down.
func TestPending_Crash(t *testing.T) {
	db := realDatabase(t)
	for moment, when := range moments {
		t.Run(moment, func(t *testing.T) {
			kept := 0
			for n := 0; ; n++ {
				f := startFakes(t, db, testserver.GoodSnapshot(db.raw))
				s, folder := mem.New(), t.TempDir()
				faulty := storagetest.FailAt(s, n, when, errFault)
				began := time.Now()
				m, err := keeper(t, f.urls[0], faulty, folder).Take(t.Context())
				var pend *snapshot.PendingError
				switch {
				case errors.As(err, &pend):
					kept++
					checkPending(t, pend, folder, began, db)
					wantStored(t, s, folder, 1)
				case err != nil && n > 5:
					t.Fatalf("operation %d: not kept: %v", n, err)
				case err == nil:
					if err := verify(t, s, m); err != nil {
						t.Error(err)
					}
				}
				wantEmpty(t, folder)
				if all := entries(t, s); len(all) > 1 || len(all) == 0 && (err == nil || pend != nil) ||
					f.streams.Load() > 1 {
					t.Fatalf("operation %d: %v; listed %v, after %d streams", n, err, all, f.streams.Load())
				}
				if !faulty.Fired() {
					break
				}
			}
			if want := map[storagetest.When]int{storagetest.Crash: 8, storagetest.Before: 4,
				storagetest.After: 3}[when]; kept != want {
				t.Errorf("%d were kept, want %d", kept, want)
			}
		})
	}
}

func checkPending(t *testing.T, pend *snapshot.PendingError, folder string, began time.Time, db database) {
	t.Helper()
	all := pending(t, folder)
	if len(all) != 1 || !cmp.Equal(all[0], pend.Pending) {
		t.Fatalf("got pending %+v, want %+v", all, pend.Pending)
	}
	p, c := all[0], all[0].Capture
	if c.Cluster != "prod" || p.Repository == "" || c.StartedAt.Before(began.Add(-time.Second)) ||
		c.Plain.Bytes != int64(len(db.raw)+32) || p.Tries != 1 || !strings.Contains(p.Why(), errFault.Error()) {
		t.Errorf("got %+v", p)
	}
	dir := spool.Folder{Dir: folder}
	used, err := dir.Bytes()
	if err != nil || used < c.Plain.Bytes {
		t.Errorf("the spools take %d bytes, %v", used, err)
	}
	files, err := os.ReadDir(folder)
	if err != nil || len(files) != 2 {
		t.Errorf("got files %v, %v", files, err)
	}
	for _, f := range files {
		if info, err := f.Info(); err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: %v, %v", f.Name(), info.Mode(), err)
		}
	}
}

// TestStorePending_Crash fails each operation of the store in turn while a
// pending snapshot is stored.
func TestStorePending_Crash(t *testing.T) {
	db := realDatabase(t)
	url := startFakes(t, db, testserver.GoodSnapshot(db.raw)).urls[0]
	for moment, when := range moments {
		t.Run(moment, func(t *testing.T) {
			for n := 0; ; n++ {
				s, folder := mem.New(), t.TempDir()
				outage(t, keeper(t, url, s, folder))
				faulty := storagetest.FailAt(s, n, when, errFault)
				stored, err := storePending(t, faulty, folder)
				if (err == nil) != (len(stored) == 1) || err != nil && !errors.Is(err, errFault) {
					t.Fatalf("operation %d: got %v, %v", n, stored, err)
				}
				if err != nil {
					p := pending(t, folder)
					if len(p) != 1 || n > 0 && (p[0].Tries != 2 || !strings.Contains(p[0].Why(), errFault.Error())) {
						t.Fatalf("operation %d: %v; pending is %+v", n, err, p)
					}
					wantStored(t, s, folder, 1)
				}
				wantEmpty(t, folder)
				if all := entries(t, s); len(all) != 1 {
					t.Fatalf("operation %d: listed %v", n, all)
				}
				if !faulty.Fired() {
					return
				}
			}
		})
	}
}

// TestPending_Reasons: which failures leave a snapshot pending.
func TestPending_Reasons(t *testing.T) {
	db := realDatabase(t)
	url := startFakes(t, db, testserver.GoodSnapshot(db.raw)).urls[0]
	const createData, statData = 6, 7
	for name, c := range map[string]struct {
		op  int
		err error
	}{
		"Forbidden":        {createData, fs.ErrPermission}, // credentials rotate
		"NoBucket":         {createData, fs.ErrNotExist},
		"StoreGivesOthers": {statData, backup.ErrCorrupt},
	} {
		t.Run(name, func(t *testing.T) {
			s, folder := mem.New(), t.TempDir()
			var kept *snapshot.PendingError
			_, err := keeper(t, url, storagetest.FailAt(s, c.op, storagetest.Before, c.err), folder).Take(t.Context())
			if !errors.As(err, &kept) || !errors.Is(err, c.err) || !strings.Contains(err.Error(), kept.Pending.Path) {
				t.Fatalf("got %v", err)
			}
			wantStored(t, s, folder, 1)
		})
	}
	t.Run("OneShot", func(t *testing.T) {
		// Nothing can be kept, so etcd is not asked for a stream in vain.
		f := startFakes(t, db, testserver.GoodSnapshot(db.raw))
		taker := newTaker(t, connect(t, f.urls[0]), failingStore(t))
		taker.id, taker.down = "known", errFault
		if _, err := taker.Take(t.Context()); !errors.Is(err, errFault) || f.streams.Load() != 0 {
			t.Errorf("got %v, after %d streams", err, f.streams.Load())
		}
	})
	t.Run("StoppedEarly", func(t *testing.T) {
		// The members have not answered, so the manifest would say less than it
		// could.
		folder := t.TempDir()
		taker := keeper(t, url, mem.New(), folder)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		at(taker, backup.StageCompare, cancel)
		var kept *snapshot.PendingError
		if _, err := taker.Take(ctx); !errors.Is(err, context.Canceled) || errors.As(err, &kept) {
			t.Errorf("got %v", err)
		}
		wantEmpty(t, folder)
	})
	t.Run("NeverReached", func(t *testing.T) {
		// It is not known for which repository it would be.
		folder := t.TempDir()
		taker := keeper(t, url, failingStore(t), folder)
		taker.down = errFault
		var kept *snapshot.PendingError
		if _, err := taker.Take(t.Context()); !errors.Is(err, errFault) || errors.As(err, &kept) {
			t.Errorf("got %v", err)
		}
		wantEmpty(t, folder)
	})
}

// damage changes the only spool of the folder.
func damage(t *testing.T, folder string, how func(f *os.File, size int64) error) {
	t.Helper()
	spools, err := filepath.Glob(filepath.Join(folder, "*.spool"))
	if err != nil || len(spools) != 1 {
		t.Fatalf("got spools %v, %v", spools, err)
	}
	f, err := os.OpenFile(spools[0], os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(how(f, info.Size()), f.Close()); err != nil {
		t.Fatal(err)
	}
}

// TestPending_Torn: a spool that differs from the received bytes is dropped, and
// this is logged.
func TestPending_Torn(t *testing.T) {
	db := realDatabase(t)
	url := startFakes(t, db, testserver.GoodSnapshot(db.raw)).urls[0]
	for name, tear := range map[string]func(f *os.File, size int64) error{
		"Shorter": func(f *os.File, size int64) error { return f.Truncate(size - 4096) },
		"Empty":   func(f *os.File, _ int64) error { return f.Truncate(0) },
		"Longer":  func(f *os.File, size int64) error { return f.Truncate(size + 1) },
		"Zeros":   func(f *os.File, _ int64) error { _, err := f.WriteAt(make([]byte, 4096), 8192); return err },
		"Trailer": func(f *os.File, size int64) error { _, err := f.WriteAt([]byte("lies"), size-10); return err },
	} {
		t.Run(name, func(t *testing.T) {
			s, folder := mem.New(), t.TempDir()
			taker := keeper(t, url, s, folder)
			outage(t, taker)
			damage(t, folder, tear)
			var log strings.Builder
			taker.Log = slog.New(slog.NewTextHandler(&log, nil))
			stored, err := taker.StorePending(t.Context())
			if err != nil || len(stored) != 0 || !strings.Contains(log.String(), "dropped a pending snapshot") ||
				!strings.Contains(log.String(), "damaged") {
				t.Errorf("got %v, %v, log %s", stored, err, log.String())
			}
			wantEmpty(t, folder)
			wantKeys(t, s)
		})
	}
}

// TestPending_Late: a snapshot that is stored after a newer one comes before it in
// the history.
func TestPending_Late(t *testing.T) {
	db := realDatabase(t)
	url := startFakes(t, db, testserver.GoodSnapshot(db.raw)).urls[0]
	id := newIdentity(t)
	s, folder := mem.New(), t.TempDir()
	p := outage(t, keeper(t, url, s, folder))
	testserver.Eventually(t, "another second", func() bool {
		return time.Now().Truncate(time.Second).After(p.Capture.StartedAt)
	})
	newer := take(t, newTaker(t, connect(t, url), s))

	taker := keeper(t, testserver.FreeURL(t), s, folder)
	taker.Codec = encryptTo(t, id.Recipient().String()) // as the configuration is now
	stored, err := taker.StorePending(t.Context())
	if err != nil || len(stored) != 1 {
		t.Fatalf("got %v, %v", stored, err)
	}
	m := stored[0]
	if m.Timeline != newer.Timeline || !m.ID.Time().Before(newer.ID.Time()) || m.Encoding.Encryption != "age" {
		t.Errorf("got %+v beside %+v", m, newer)
	}
	if err := verify(t, s, m, id); err != nil {
		t.Error(err)
	}
	if all := entries(t, s); !slices.Equal(all, []backup.Key{newer.ObjectKey(), m.ObjectKey()}) {
		t.Errorf("listed %v", all)
	}
	wantEmpty(t, folder)
}

// TestPending_S3: a real S3 server hangs in the middle of an upload, the process
// is stopped, the cluster goes away, and the server comes back.
func TestPending_S3(t *testing.T) {
	real := testserver.StartCluster(t, testserver.Options{})
	filled := testserver.Fill(t, real.Client(t), testserver.FillOptions{Keys: 40, ValueBytes: 40_000})
	direct, proxied, proxy := newProxiedS3(t)
	folder := t.TempDir()
	taker := keeper(t, real.Endpoints()[0], proxied, folder)
	if _, err := repository.Create(t.Context(), direct); err != nil {
		t.Fatal(err)
	}
	proxy.StallAfter(testserver.ToServer, 100_000)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		testserver.Eventually(t, "the snapshot can be kept", func() bool {
			records, err := filepath.Glob(filepath.Join(folder, "*.pending.json"))
			return err != nil || len(records) == 1
		})
		// While it is stored for the first time nothing is pending.
		if all, err := (&spool.Folder{Dir: folder}).Waiting(); err != nil || len(all) != 0 {
			t.Errorf("got pending %v, %v", all, err)
		}
		cancel()
		proxy.Resume() // or giving up would take its time
	}()
	var kept *snapshot.PendingError
	_, err := taker.Take(ctx)
	<-done
	if !errors.As(err, &kept) || !errors.Is(err, context.Canceled) {
		t.Fatalf("got %v", err)
	}
	real.Members[0].Terminate()
	m := wantStored(t, proxied, folder, 1)[0]
	if m.Revision != backup.Revision(filled.Revision) || !m.Verified() {
		t.Errorf("got revision %d, suspect %v; want %d", m.Revision, m.Suspect, filled.Revision)
	}
	// The part that the server held when it hung may be left as litter.
	if all := entries(t, direct); !slices.Equal(all, []backup.Key{m.ObjectKey()}) {
		t.Errorf("listed %v", all)
	}
}
