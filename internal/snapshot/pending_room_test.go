package snapshot_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/snapshot"
	"github.com/etcd-backupd/backupd/internal/spool"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest/mem"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// TestPending_OthersAffair: a spool of another repository or cluster, or one that
// another user may have planted, is neither stored nor swept away.
func TestPending_OthersAffair(t *testing.T) {
	db := realDatabase(t)
	url := startFakes(t, db, testserver.GoodSnapshot(db.raw)).urls[0]
	s, folder := mem.New(), t.TempDir()
	path := outage(t, keeper(t, url, s, folder)).Path
	beside := strings.TrimSuffix(path, ".spool") + ".pending.json"
	wantNothing := func(t *testing.T, taker *taker, want error) {
		t.Helper()
		if stored, err := taker.StorePending(t.Context()); len(stored) != 0 || !errors.Is(err, want) {
			t.Errorf("got %v, %v", stored, err)
		}
		for _, path := range []string{path, beside} {
			if _, err := os.Lstat(path); err != nil {
				t.Error(err)
			}
		}
	}
	other := mem.New()
	taker := keeper(t, url, other, folder)
	t.Run("NoRepository", func(t *testing.T) { wantNothing(t, taker, fs.ErrNotExist) })
	t.Run("OtherRepository", func(t *testing.T) {
		if _, err := repository.Create(t.Context(), other); err != nil {
			t.Fatal(err)
		}
		wantNothing(t, taker, nil)
	})
	t.Run("OtherCluster", func(t *testing.T) {
		taker := keeper(t, url, s, folder)
		taker.cluster = "test"
		wantNothing(t, taker, nil)
	})
	t.Run("OneShot", func(t *testing.T) {
		taker := keeper(t, url, other, folder)
		taker.Spool.Keep = false
		m := take(t, taker)
		v := newVerifier(other, "prod", folder)
		if _, err := v.Verify(t.Context(), item(m)); err != nil {
			t.Error(err)
		}
		wantNothing(t, taker, nil)
	})
	t.Run("OtherUser", func(t *testing.T) {
		for _, path := range []string{path, beside} {
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
		away := filepath.Join(t.TempDir(), "beside")
		if err := errors.Join(os.Rename(beside, away), os.Symlink(away, beside)); err != nil {
			t.Fatal(err)
		}
		wantNothing(t, keeper(t, url, s, folder), nil)
		if err := os.Rename(away, beside); err != nil {
			t.Fatal(err)
		}
	})
	wantStored(t, s, folder, 1)
}

// TestPending_TwoAtOnce: of two processes only one stores a pending snapshot, and
// a sweep takes nothing from it.
func TestPending_TwoAtOnce(t *testing.T) {
	db := realDatabase(t)
	url := startFakes(t, db, testserver.GoodSnapshot(db.raw)).urls[0]
	inner, folder := mem.New(), t.TempDir()
	outage(t, keeper(t, url, inner, folder))
	gate := make(chan struct{})
	first, second := keeper(t, testserver.FreeURL(t), gated(inner, gate), folder),
		keeper(t, testserver.FreeURL(t), inner, folder)
	var stored []*backup.Manifest
	var err error
	begun, done := make(chan struct{}), make(chan struct{})
	at(first, backup.StageStore, func() { close(begun) })
	go func() {
		defer close(done)
		stored, err = first.StorePending(t.Context())
	}()
	go func() { // the encoder reads only once the store takes
		testserver.Eventually(t, "the spool is claimed", func() bool { return claimed(folder) })
		others, err := second.StorePending(t.Context())
		if len(others) != 0 || err != nil {
			t.Errorf("the second got %v, %v", others, err)
		}
		if p, err := (&spool.Folder{Dir: folder}).Waiting(); err != nil || len(p) != 1 {
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

// claimed reports whether a process holds a spool of the folder.
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

// TestPending_Count: the newest of each cluster stay pending, and are stored in
// the order in which they were taken.
func TestPending_Count(t *testing.T) {
	db := realDatabase(t)
	f := startFakes(t, db, testserver.GoodSnapshot(db.raw))
	s, folder := mem.New(), t.TempDir()
	var taken []spool.Pending
	for range 5 {
		taken = append(taken, outage(t, keeper(t, f.urls[0], s, folder)))
	}
	other := keeper(t, f.urls[0], s, folder)
	other.cluster = "test"
	outage(t, other)
	if got := pending(t, folder); !cmp.Equal(got[:len(got)-1], taken[2:]) {
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
		if !m.StartedAt.Equal(taken[i+2].Capture.StartedAt) || m.ID.Time() != m.StartedAt.Truncate(time.Second) ||
			m.ID.Revision() != db.facts.Revision {
			t.Errorf("%d: got %s, begun at %v", i, m.ID, m.StartedAt)
		}
		if m.Timeline != stored[0].Timeline {
			t.Errorf("%d: timeline %s is not %s", i, m.Timeline, stored[0].Timeline)
		}
	}
	// Take stores pending snapshots too.
	last := take(t, other)
	if n := len(entries(t, s)); n != 5 || last.Cluster != "test" {
		t.Errorf("%d are listed", n)
	}
	wantEmpty(t, folder)
}

// TestPending_SpoolLimit: older pending snapshots give way to newer ones, but
// never the newest of a cluster.
func TestPending_SpoolLimit(t *testing.T) {
	db := realDatabase(t)
	f := startFakes(t, db, testserver.GoodSnapshot(db.raw))
	folder, size := t.TempDir(), int64(len(db.raw))
	try := func(cluster string, limit int64) error {
		taker := keeper(t, f.urls[0], failingStore(t), folder)
		taker.cluster, taker.Spool.Limit, taker.id, taker.down = cluster, limit, "some", errFault
		_, err := taker.Take(t.Context())
		return err
	}
	list := func() (out []string) {
		for _, p := range pending(t, folder) {
			out = append(out, fmt.Sprint(p.Capture.Cluster, p.Capture.StartedAt.UnixNano()))
		}
		return out
	}
	var kept *snapshot.PendingError
	for _, cluster := range []string{"a", "a", "b"} {
		if err := try(cluster, 0); !errors.As(err, &kept) {
			t.Fatal(err)
		}
	}
	all := list()
	// One has to go: the only one that may is the first of a.
	if err := try("b", 7*size/2); !errors.As(err, &kept) {
		t.Fatal(err)
	}
	if got := list(); len(got) != 3 || !slices.Equal(got[:2], all[1:]) {
		t.Errorf("got %v after %v", got, all)
	}
	// Even without all that may go there is no room for another.
	all = list()
	streams := f.streams.Load()
	err := try("a", 3*size/2)
	var hint *backup.HintError
	if !errors.Is(err, unix.ENOSPC) || !errors.As(err, &hint) ||
		!strings.Contains(err.Error(), fmt.Sprint("may hold ", 3*size/2)) {
		t.Errorf("got %v", err)
	}
	if got := list(); !slices.Equal(got, all) || f.streams.Load() != streams {
		t.Errorf("got %v after %v, %d streams", got, all, f.streams.Load()-streams)
	}
	// Without the pending one the limit is enough for one.
	folder = t.TempDir()
	if err := try("a", 3*size/2); !errors.As(err, &kept) {
		t.Error(err)
	}
}

// TestPending_Grown: the limit applies also to a database that grew since the
// survey.
func TestPending_Grown(t *testing.T) {
	db := realDatabase(t)
	small := db
	small.raw = db.raw[:4096] // what the members report
	taker := keeper(t, startFakes(t, small, testserver.GoodSnapshot(db.raw)).urls[0], mem.New(), t.TempDir())
	taker.Spool.Limit = int64(len(db.raw)) / 2
	if _, err := taker.Take(t.Context()); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("got %v", err)
	}
	wantEmpty(t, taker.Spool.Dir)
}
