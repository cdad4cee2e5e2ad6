package snapshot_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/snapshot"
	"github.com/etcd-backupd/backupd/internal/storage"
	"github.com/etcd-backupd/backupd/internal/storage/mem"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// keeper returns a taker that keeps what it cannot store in the folder.
func keeper(t *testing.T, endpoint string, s storage.Store, folder string) *snapshot.Taker {
	t.Helper()
	taker := newTaker(t, connect(t, endpoint), s)
	taker.KeepPending, taker.Spool = true, folder
	return taker
}

// pending returns what waits in the folder.
func pending(t *testing.T, folder string) []snapshot.PendingSpool {
	t.Helper()
	all, err := snapshot.Pending(folder)
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// outage takes a snapshot while the store is down, and wants it to be kept.
func outage(t *testing.T, taker *snapshot.Taker) snapshot.PendingSpool {
	t.Helper()
	inner := taker.Store
	defer func() { taker.Store = inner }()
	marker, err := storage.InitRepository(t.Context(), inner)
	if err != nil {
		t.Fatal(err)
	}
	taker.Repository = marker.ID
	taker.Store = storagetest.FailAt(inner, 0, storagetest.Crash, errFault)
	var kept *snapshot.PendingError
	if _, err := taker.Take(t.Context()); !errors.As(err, &kept) || !errors.Is(err, errFault) {
		t.Fatalf("with the store down: got %v, want a PendingError", err)
	}
	return kept.Spool
}

// storePending stores what is pending, with no member of the cluster alive.
func storePending(t *testing.T, s storage.Store, folder string) ([]*backup.Manifest, error) {
	t.Helper()
	return keeper(t, testserver.FreeURL(t), s, folder).StorePending(t.Context())
}

// wantStored stores what is pending and checks that this is all that is stored.
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

// TestPending_Crash fails each operation of the store in turn while a snapshot
// is taken. What was received is stored later, once, with etcd down.
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
				case err != nil && n > 2:
					t.Fatalf("operation %d: not kept: %v", n, err)
				case err == nil:
					if err := verify(t, s, m); err != nil {
						t.Error(err)
					}
				}
				wantEmpty(t, folder)
				if all := entries(t, s); len(all) > 1 || len(all) == 0 && (err == nil || pend != nil) || f.streams.Load() > 1 {
					t.Fatalf("operation %d: %v; listed %v, after %d streams", n, err, all, f.streams.Load())
				}
				if !faulty.Fired() {
					break
				}
			}
			if want := map[storagetest.When]int{storagetest.Crash: 5, storagetest.Before: 2, storagetest.After: 1}[when]; kept != want {
				t.Errorf("%d were kept, want %d", kept, want)
			}
		})
	}
}

func checkPending(t *testing.T, pend *snapshot.PendingError, folder string, began time.Time, db database) {
	t.Helper()
	all := pending(t, folder)
	if len(all) != 1 || all[0] != pend.Spool {
		t.Fatalf("got pending %+v, want %+v", all, pend.Spool)
	}
	p := all[0]
	if p.Cluster != "prod" || p.Repository == "" || p.Since.Before(began.Add(-time.Second)) || p.Bytes != int64(len(db.raw)+32) || p.Tries != 1 || !strings.Contains(p.Reason, errFault.Error()) {
		t.Errorf("got %+v", p)
	}
	used, err := snapshot.SpoolBytes(folder)
	if err != nil || used < p.Bytes {
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
					if len(p) != 1 || n > 0 && (p[0].Tries != 2 || !strings.Contains(p[0].Reason, errFault.Error())) {
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

// TestPending_Reasons: what is kept when a snapshot could not be stored.
func TestPending_Reasons(t *testing.T) {
	db := realDatabase(t)
	url := startFakes(t, db, testserver.GoodSnapshot(db.raw)).urls[0]
	const createData, statData = 3, 4
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
			if !errors.As(err, &kept) || !errors.Is(err, c.err) || !strings.Contains(err.Error(), kept.Spool.Path) {
				t.Fatalf("got %v", err)
			}
			wantStored(t, s, folder, 1)
		})
	}
	t.Run("OneShot", func(t *testing.T) {
		f := startFakes(t, db, testserver.GoodSnapshot(db.raw))
		taker := newTaker(t, connect(t, f.urls[0]), storagetest.FailAt(mem.New(), 2, storagetest.Crash, errFault))
		taker.Repository = "known"
		if _, err := taker.Take(t.Context()); !errors.Is(err, errFault) || f.streams.Load() != 0 {
			t.Errorf("got %v, after %d streams", err, f.streams.Load())
		}
	})
	t.Run("StoppedEarly", func(t *testing.T) {
		// The members were not heard: the manifest would say less than it could.
		folder := t.TempDir()
		taker := keeper(t, url, mem.New(), folder)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		at(taker, snapshot.StageCompare, cancel)
		var kept *snapshot.PendingError
		if _, err := taker.Take(ctx); !errors.Is(err, context.Canceled) || errors.As(err, &kept) {
			t.Errorf("got %v", err)
		}
		wantEmpty(t, folder)
	})
	t.Run("NeverReached", func(t *testing.T) {
		// Nobody knows which repository it would go to.
		folder := t.TempDir()
		taker := keeper(t, url, storagetest.FailAt(mem.New(), 0, storagetest.Crash, errFault), folder)
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

// TestPending_Torn: a spool that is not what was received is dropped, and the
// log says so.
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
			if err != nil || len(stored) != 0 || !strings.Contains(log.String(), "dropped a pending snapshot") || !strings.Contains(log.String(), "damaged") {
				t.Errorf("got %v, %v, log %s", stored, err, log.String())
			}
			wantEmpty(t, folder)
			wantKeys(t, s)
		})
	}
}

// TestPending_OthersAffair: what belongs to another repository or cluster, or
// may have been planted by another user, is neither stored nor swept away.
func TestPending_OthersAffair(t *testing.T) {
	db := realDatabase(t)
	url := startFakes(t, db, testserver.GoodSnapshot(db.raw)).urls[0]
	s, folder := mem.New(), t.TempDir()
	spool := outage(t, keeper(t, url, s, folder)).Path
	record := strings.TrimSuffix(spool, ".spool") + ".pending.json"
	wantNothing := func(t *testing.T, taker *snapshot.Taker, want error) {
		t.Helper()
		if stored, err := taker.StorePending(t.Context()); len(stored) != 0 || !errors.Is(err, want) {
			t.Errorf("got %v, %v", stored, err)
		}
		for _, path := range []string{spool, record} {
			if _, err := os.Lstat(path); err != nil {
				t.Error(err)
			}
		}
	}
	other := mem.New()
	taker := keeper(t, url, other, folder)
	t.Run("NoRepository", func(t *testing.T) { wantNothing(t, taker, fs.ErrNotExist) })
	t.Run("OtherRepository", func(t *testing.T) {
		if _, err := storage.InitRepository(t.Context(), other); err != nil {
			t.Fatal(err)
		}
		wantNothing(t, taker, nil)
	})
	t.Run("OtherCluster", func(t *testing.T) {
		taker := keeper(t, url, s, folder)
		taker.Cluster = "test"
		wantNothing(t, taker, nil)
	})
	t.Run("OneShot", func(t *testing.T) {
		taker := keeper(t, url, other, folder)
		taker.KeepPending = false
		m := take(t, taker)
		v := snapshot.Verifier{Store: other, Spool: folder}
		if _, err := v.Verify(t.Context(), entry(m)); err != nil {
			t.Error(err)
		}
		wantNothing(t, taker, nil)
	})
	t.Run("OtherUser", func(t *testing.T) {
		for _, path := range []string{spool, record} {
			if err := os.Chmod(path, 0o644); err != nil {
				t.Fatal(err)
			}
			wantNothing(t, keeper(t, url, s, folder), nil)
			if p := pending(t, folder); len(p) != 0 {
				t.Errorf("listed %+v", p)
			}
			if err := os.Chmod(path, 0o600); err != nil {
				t.Fatal(err)
			}
			if os.Geteuid() != 0 {
				continue
			}
			if err := os.Chown(path, 65534, 65534); err != nil {
				t.Fatal(err)
			}
			wantNothing(t, keeper(t, url, s, folder), nil)
			if err := os.Chown(path, 0, 0); err != nil {
				t.Fatal(err)
			}
		}
	})
	t.Run("Link", func(t *testing.T) {
		away := filepath.Join(t.TempDir(), "record")
		if err := errors.Join(os.Rename(record, away), os.Symlink(away, record)); err != nil {
			t.Fatal(err)
		}
		wantNothing(t, keeper(t, url, s, folder), nil)
		if err := os.Rename(away, record); err != nil {
			t.Fatal(err)
		}
	})
	wantStored(t, s, folder, 1)
}

// TestPending_TwoAtOnce: of two processes that store what is pending one does,
// and a sweep takes nothing away from it.
func TestPending_TwoAtOnce(t *testing.T) {
	db := realDatabase(t)
	url := startFakes(t, db, testserver.GoodSnapshot(db.raw)).urls[0]
	inner, folder := mem.New(), t.TempDir()
	outage(t, keeper(t, url, inner, folder))
	gate := make(chan struct{})
	first, second := keeper(t, testserver.FreeURL(t), &gatedStore{inner, gate}, folder), keeper(t, testserver.FreeURL(t), inner, folder)
	var stored []*backup.Manifest
	var err error
	begun, done := make(chan struct{}), make(chan struct{})
	at(first, snapshot.StageStore, func() { close(begun) })
	go func() {
		defer close(done)
		stored, err = first.StorePending(t.Context())
	}()
	go func() { // the encoder reads only once the store takes
		eventually(t, "the spool is claimed", func() bool { return claimed(folder) })
		others, err := second.StorePending(t.Context())
		if len(others) != 0 || err != nil {
			t.Errorf("the second got %v, %v", others, err)
		}
		if p, err := snapshot.Pending(folder); err != nil || len(p) != 1 {
			t.Errorf("meanwhile: got pending %v, %v", p, err)
		}
		close(gate)
	}()
	<-begun
	<-done
	if err != nil || len(stored) != 1 {
		t.Fatalf("the first got %v, %v", stored, err)
	}
	wantEmpty(t, folder)
	wantKeys(t, inner, stored...)
}

// claimed reports whether somebody holds a spool of the folder.
func claimed(folder string) bool {
	spools, err := filepath.Glob(filepath.Join(folder, "*.spool"))
	if err != nil || len(spools) == 0 {
		return false
	}
	f, err := os.Open(spools[0])
	if err != nil {
		return false
	}
	defer f.Close()
	return unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB) != nil
}

// TestPending_Count: the newest of each cluster are kept, and stored in the
// order in which they were taken.
func TestPending_Count(t *testing.T) {
	db := realDatabase(t)
	f := startFakes(t, db, testserver.GoodSnapshot(db.raw))
	s, folder := mem.New(), t.TempDir()
	var taken []snapshot.PendingSpool
	for range 5 {
		taken = append(taken, outage(t, keeper(t, f.urls[0], s, folder)))
	}
	other := keeper(t, f.urls[0], s, folder)
	other.Cluster = "test"
	outage(t, other)
	if got := pending(t, folder); !slices.Equal(got[:len(got)-1], taken[2:]) {
		t.Errorf("got %+v, want the last three of %+v", got, taken)
	}
	if n := f.streams.Load(); n != 6 {
		t.Errorf("%d streams", n)
	}
	stored, err := storePending(t, s, folder)
	if err != nil || len(stored) != 3 {
		t.Fatalf("got %v, %v", stored, err)
	}
	for i, m := range stored {
		if !m.StartedAt.Equal(taken[i+2].Since) || m.ID.Time() != m.StartedAt.Truncate(time.Second) || m.ID.Revision() != db.facts.Revision {
			t.Errorf("%d: got %s, begun at %v", i, m.ID, m.StartedAt)
		}
		if m.Timeline != stored[0].Timeline {
			t.Errorf("%d: timeline %s is not %s", i, m.Timeline, stored[0].Timeline)
		}
	}
	// Take stores what is pending too.
	last := take(t, other)
	if n := len(entries(t, s)); n != 5 || last.Cluster != "test" {
		t.Errorf("%d are listed", n)
	}
	wantEmpty(t, folder)
}

// TestPending_SpoolLimit: older pending snapshots give way to newer ones, the
// newest of a cluster to nothing.
func TestPending_SpoolLimit(t *testing.T) {
	db := realDatabase(t)
	f := startFakes(t, db, testserver.GoodSnapshot(db.raw))
	s, folder, size := mem.New(), t.TempDir(), int64(len(db.raw))
	try := func(cluster string, limit int64) (*snapshot.Taker, error) {
		taker := keeper(t, f.urls[0], storagetest.FailAt(s, 0, storagetest.Crash, errFault), folder)
		taker.Cluster, taker.SpoolLimit, taker.Repository = cluster, limit, "some"
		_, err := taker.Take(t.Context())
		return taker, err
	}
	list := func() (out []string) {
		for _, p := range pending(t, folder) {
			out = append(out, fmt.Sprint(p.Cluster, p.Since.UnixNano()))
		}
		return out
	}
	var kept *snapshot.PendingError
	for _, cluster := range []string{"a", "a", "b"} {
		if _, err := try(cluster, 0); !errors.As(err, &kept) {
			t.Fatal(err)
		}
	}
	all := list()
	// One has to go: the only one that may is the first of a.
	if _, err := try("b", 7*size/2); !errors.As(err, &kept) {
		t.Fatal(err)
	}
	if got := list(); len(got) != 3 || !slices.Equal(got[:2], all[1:]) {
		t.Errorf("got %v after %v", got, all)
	}
	// Not even without everything that may go is there room for another.
	all = list()
	streams := f.streams.Load()
	_, err := try("a", 3*size/2)
	var hint *backup.HintError
	if !errors.Is(err, unix.ENOSPC) || !errors.As(err, &hint) || !strings.Contains(err.Error(), fmt.Sprint("may hold ", 3*size/2)) {
		t.Errorf("got %v", err)
	}
	if got := list(); !slices.Equal(got, all) || f.streams.Load() != streams {
		t.Errorf("got %v after %v, %d streams", got, all, f.streams.Load()-streams)
	}
	// Without a pending one in the way the limit is enough for one.
	folder = t.TempDir()
	if _, err := try("a", 3*size/2); !errors.As(err, &kept) {
		t.Error(err)
	}
}

// TestPending_Grown: a database that grew since the survey is held against the
// limit too.
func TestPending_Grown(t *testing.T) {
	db := realDatabase(t)
	small := db
	small.raw = db.raw[:4096] // what the members' status tells
	taker := keeper(t, startFakes(t, small, testserver.GoodSnapshot(db.raw)).urls[0], mem.New(), t.TempDir())
	taker.SpoolLimit = int64(len(db.raw)) / 2
	if _, err := taker.Take(t.Context()); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("got %v", err)
	}
	wantEmpty(t, taker.Spool)
}

// TestPending_Late: a snapshot that is stored after a newer one takes its place
// before it.
func TestPending_Late(t *testing.T) {
	db := realDatabase(t)
	url := startFakes(t, db, testserver.GoodSnapshot(db.raw)).urls[0]
	id := newIdentity(t)
	s, folder := mem.New(), t.TempDir()
	p := outage(t, keeper(t, url, s, folder))
	eventually(t, "another second", func() bool { return time.Now().Truncate(time.Second).After(p.Since) })
	newer := take(t, newTaker(t, connect(t, url), s))

	taker := keeper(t, testserver.FreeURL(t), s, folder)
	taker.Codec = encryptTo(t, id.Recipient().String()) // as it is configured by now
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
	if all := entries(t, s); !slices.Equal(all, []snapshot.Entry{entry(newer), entry(m)}) {
		t.Errorf("listed %v", all)
	}
	wantEmpty(t, folder)
}

// TestPending_S3: a real S3 server hangs in the middle of an upload, the process
// is told to stop, the cluster goes away, and the server comes back.
func TestPending_S3(t *testing.T) {
	real := testserver.StartCluster(t, testserver.Options{})
	filled := testserver.Fill(t, real.Client(t), testserver.FillOptions{Keys: 40, ValueBytes: 40_000})
	direct, proxied, proxy := newProxiedS3(t)
	folder := t.TempDir()
	taker := keeper(t, real.Endpoints()[0], proxied, folder)
	if _, err := storage.InitRepository(t.Context(), direct); err != nil {
		t.Fatal(err)
	}
	proxy.StallAfter(testserver.ToServer, 100_000)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		eventually(t, "the snapshot can be kept", func() bool {
			records, err := filepath.Glob(filepath.Join(folder, "*.pending.json"))
			return err != nil || len(records) == 1
		})
		// While it is stored for the first time nothing is pending.
		if all, err := snapshot.Pending(folder); err != nil || len(all) != 0 {
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
	// What the server had in hand when it hung may be left as litter.
	if all := entries(t, direct); !slices.Equal(all, []snapshot.Entry{entry(m)}) {
		t.Errorf("listed %v", all)
	}
}
