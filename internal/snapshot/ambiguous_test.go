package snapshot_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/snapshot"
	"github.com/etcd-backupd/backupd/internal/storage"
	"github.com/etcd-backupd/backupd/internal/storage/file"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// losesManifest returns a store that stores a manifest, loses the answer, and then can
// be read no longer, until heal is called. It still deletes.
func losesManifest(s storage.Store) (lossy storage.Store, heal func()) {
	var silent, healed atomic.Bool
	ask := func(_ context.Context, op storage.Op, _ string) error {
		if silent.Load() && !healed.Load() && op != storage.OpDelete {
			return errFault
		}
		return nil
	}
	return &storagetest.Hook{
		Store: s, Before: ask,
		After: func(ctx context.Context, op storage.Op, key string) error {
			if op == storage.OpCreate && strings.HasPrefix(key, backup.ManifestPrefix("prod")) {
				silent.Store(true)
			}
			return ask(ctx, op, key)
		},
	}, func() { healed.Store(true) }
}

// TestTaker_Take_ManifestUnknown: the manifest is stored, but nobody can tell. It is a
// failure, and yet the snapshot must be whole when the store answers again.
func TestTaker_Take_ManifestUnknown(t *testing.T) {
	db := realDatabase(t)
	s := file.New(t.TempDir())
	lossy, _ := losesManifest(s)
	taker := newTaker(t, connect(t, startFakes(t, db, testserver.GoodSnapshot(db.raw)).urls...), lossy)
	if _, err := taker.Take(t.Context()); !errors.Is(err, errFault) {
		t.Fatalf("got %v", err)
	}
	wantOneWhole(t, s)
}

// TestStorePending_ManifestUnknown is the same with a snapshot that has waited. It
// waits on, and then is found to be stored.
func TestStorePending_ManifestUnknown(t *testing.T) {
	db := realDatabase(t)
	s, folder := file.New(t.TempDir()), t.TempDir()
	lossy, heal := losesManifest(s)
	outage(t, keeper(t, startFakes(t, db, testserver.GoodSnapshot(db.raw)).urls[0], s, folder))
	if stored, err := storePending(t, lossy, folder); !errors.Is(err, errFault) || len(stored) > 0 {
		t.Fatalf("got %v, %v", stored, err)
	}
	wantOneWhole(t, s)
	heal()
	stored, err := storePending(t, lossy, folder)
	if err != nil || len(stored) != 1 {
		t.Fatalf("got %v, %v", stored, err)
	}
	wantKeys(t, s, stored...)
	wantEmpty(t, folder)
}

// TestTaker_Take_NameTaken: another process has just stored data under the name that
// this one chose. That data stays, and the snapshot gets another name.
func TestTaker_Take_NameTaken(t *testing.T) {
	db := realDatabase(t)
	s := file.New(t.TempDir())
	taken := ""
	hooked := &storagetest.Hook{Store: s, Before: func(_ context.Context, op storage.Op, key string) error {
		if op == storage.OpCreate && taken == "" && strings.HasPrefix(key, backup.DataPrefix("prod")) {
			taken = key
			return s.Create(t.Context(), key, strings.NewReader("another snapshot"))
		}
		return nil
	}}
	m := take(t, newTaker(t, connect(t, startFakes(t, db, testserver.GoodSnapshot(db.raw)).urls...), hooked))
	if raw := readObject(t, s, taken); string(raw) != "another snapshot" || taken == m.DataKey() {
		t.Errorf("%s holds %d bytes, the snapshot is %s", taken, len(raw), m.DataKey())
	}
	if err := verify(t, s, m); err != nil {
		t.Error(err)
	}
}

func wantOneWhole(t *testing.T, s storage.Store) {
	t.Helper()
	all := entries(t, s)
	if len(all) != 1 {
		t.Fatalf("stored: %v, want one", all)
	}
	if _, err := newVerifier(s, "prod", t.TempDir()).Verify(t.Context(), itemOf(all[0])); err != nil {
		t.Error(err)
	}
}

// TestSource_OtherPlain: the stored bytes are right, and yield another snapshot than
// the manifest promises. A restore must not take them.
func TestSource_OtherPlain(t *testing.T) {
	db := realDatabase(t)
	s := file.New(t.TempDir())
	m := take(t, newTaker(t, connect(t, startFakes(t, db, testserver.GoodSnapshot(db.raw)).urls...), s))
	place := func(m *backup.Manifest) error {
		f, err := os.Create(filepath.Join(t.TempDir(), "db"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		return snapshot.NewSource(in(s).Cluster("prod"), m, nil).Place(t.Context(), f, func(int64, int64) {})
	}
	if err := place(m); err != nil {
		t.Fatal(err)
	}
	m.Plain.SHA256[0] ^= 1
	if err := place(m); !errors.Is(err, backup.ErrCorrupt) {
		t.Errorf("got %v", err)
	}
}
