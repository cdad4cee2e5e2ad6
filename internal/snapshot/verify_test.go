package snapshot_test

import (
	"crypto/sha256"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"bytes"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/codec"
	"github.com/etcd-backupd/backupd/internal/snapshot"
	"github.com/etcd-backupd/backupd/internal/storage/file"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest/mem"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// TestVerifier_Content: a manifest that is whole but tells what the database
// does not hold.
func TestVerifier_Content(t *testing.T) {
	db := realDatabase(t)
	source := connect(t, startFakes(t, db, testserver.GoodSnapshot(db.raw)).urls...)
	for name, lie := range map[string]func(*backup.Manifest){
		"Keys":            func(m *backup.Manifest) { m.Keys++ },
		"Leases":          func(m *backup.Manifest) { m.Leases++ },
		"HashKV":          func(m *backup.Manifest) { m.HashKV.Hash ^= 1 },
		"CompactRevision": func(m *backup.Manifest) { m.CompactRevision-- },
	} {
		t.Run(name, func(t *testing.T) {
			s := mem.New()
			m := take(t, newTaker(t, source, s))
			if err := s.Delete(t.Context(), m.Key()); err != nil {
				t.Fatal(err)
			}
			lie(m)
			addManifest(t, s, m)
			var defect *snapshot.DefectError
			if err := verify(t, s, m); !errors.As(err, &defect) || defect.Kind != snapshot.Content {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestVerifier_Unreadable: what says nothing about the snapshot is no defect.
func TestVerifier_Unreadable(t *testing.T) {
	db := realDatabase(t)
	s := mem.New()
	taker := newTaker(t, connect(t, startFakes(t, db, testserver.GoodSnapshot(db.raw)).urls...), s)
	id := newIdentity(t)
	taker.Codec = encryptTo(t, id.Recipient().String())
	m := take(t, taker)
	var defect *snapshot.DefectError
	if err := verify(t, s, m); !errors.Is(err, codec.ErrNoIdentity) || errors.As(err, &defect) {
		t.Errorf("without identity: got %v", err)
	}
	if err := verify(t, s, m, newIdentity(t)); !errors.Is(err, codec.ErrNoIdentity) || errors.As(err, &defect) {
		t.Errorf("with another's identity: got %v", err)
	}
	for n := range 3 { // the manifest, the size, the data
		v := snapshot.Verifier{Store: storagetest.FailAt(s, n, storagetest.Before, errFault), Identities: codec.Identities{id}, Spool: t.TempDir()}
		if _, err := v.Verify(t.Context(), entry(m)); !errors.Is(err, errFault) || errors.As(err, &defect) || errors.Is(err, backup.ErrCorrupt) {
			t.Errorf("operation %d of the store fails: got %v", n, err)
		}
		wantEmpty(t, v.Spool)
	}
	if err := verify(t, s, m, id); err != nil {
		t.Error(err)
	}
}

// TestInterop: a stored object is no hostage. The plain tools age and zstd, as
// Debian ships them, turn it back into etcd's file, which etcdutl accepts.
func TestInterop(t *testing.T) {
	for _, tool := range []string{"age", "zstd"} {
		testserver.Debian(t, tool, tool)
	}
	db := realDatabase(t)
	source := connect(t, startFakes(t, db, testserver.GoodSnapshot(db.raw)).urls...)
	id := newIdentity(t)
	key := filepath.Join(t.TempDir(), "key.txt")
	if err := os.WriteFile(key, []byte(id.String()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(db.raw)
	want := append(bytes.Clone(db.raw), sum[:]...)
	for name, c := range map[string]struct {
		codec  codec.Options
		decode string
	}{
		"Zstd":    {codec.Options{Compress: codec.Zstd}, `zstd -q -d -c "$1"`},
		"ZstdAge": {encryptTo(t, id.Recipient().String()), `age -d -i "$2" "$1" | zstd -q -d -c`},
		"Age":     {codec.Options{Recipients: encryptTo(t, id.Recipient().String()).Recipients}, `age -d -i "$2" "$1"`},
		"None":    {codec.Options{}, `cat "$1"`},
	} {
		t.Run(name, func(t *testing.T) {
			folder := t.TempDir()
			taker := newTaker(t, source, file.New(folder))
			taker.Codec = c.codec
			m := take(t, taker)
			got := run(t, "bash", "-c", "set -o pipefail; "+c.decode, "decode", filepath.Join(folder, m.DataKey()), key)
			if !bytes.Equal(got, want) {
				t.Fatalf("got %d bytes, want the %d that etcd sent", len(got), len(want))
			}
			checkStatus(t, got, m)
		})
	}
}
