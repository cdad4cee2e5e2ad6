package snapshot_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
	"github.com/klauspost/compress/zstd"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/codec"
	"github.com/etcd-backupd/backupd/internal/storage"
	"github.com/etcd-backupd/backupd/internal/storage/file"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest/mem"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// TestVerifier_Content: a manifest that is whole and does not agree with the
// database.
func TestVerifier_Content(t *testing.T) {
	db := realDatabase(t)
	source := connect(t, startFakes(t, db, testserver.GoodSnapshot(db.raw)).urls...)
	for name, lie := range map[string]func(*backup.Manifest){
		"Keys":            func(m *backup.Manifest) { m.Keys++ },
		"Leases":          func(m *backup.Manifest) { m.Leases++ },
		"HashKV":          func(m *backup.Manifest) { m.HashKV.Hash ^= 1 },
		"CompactRevision": func(m *backup.Manifest) { m.CompactRevision-- },
		"PlainSHA256":     func(m *backup.Manifest) { m.Plain.SHA256[0] ^= 1 },
	} {
		t.Run(name, func(t *testing.T) {
			s := mem.New()
			m := take(t, newTaker(t, source, s))
			if err := s.Delete(t.Context(), m.Key()); err != nil {
				t.Fatal(err)
			}
			lie(m)
			addManifest(t, s, m)
			var defect *backup.DefectError
			if err := verify(t, s, m); !errors.As(err, &defect) || defect.Kind != backup.Content {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestVerifier_Unreadable: an error that says nothing about the snapshot is no
// defect.
func TestVerifier_Unreadable(t *testing.T) {
	db := realDatabase(t)
	s := mem.New()
	taker := newTaker(t, connect(t, startFakes(t, db, testserver.GoodSnapshot(db.raw)).urls...), s)
	id := newIdentity(t)
	taker.Codec = encryptTo(t, id.Recipient().String())
	m := take(t, taker)
	var defect *backup.DefectError
	if err := verify(t, s, m); !errors.Is(err, codec.ErrNoIdentity) || errors.As(err, &defect) {
		t.Errorf("without identity: got %v", err)
	}
	if err := verify(t, s, m, newIdentity(t)); !errors.Is(err, codec.ErrNoIdentity) || errors.As(err, &defect) {
		t.Errorf("with another's identity: got %v", err)
	}
	for n := range 3 { // the manifest, the size, the data
		v := newVerifier(storagetest.FailAt(s, n, storagetest.Before, errFault), "prod", t.TempDir())
		v.Identities = codec.Identities{id}
		if _, err := v.Verify(t.Context(), item(m)); !errors.Is(err, errFault) || errors.As(err, &defect) ||
			errors.Is(err, backup.ErrCorrupt) {
			t.Errorf("operation %d of the store fails: got %v", n, err)
		}
		wantEmpty(t, v.Spool.Dir)
	}
	if err := verify(t, s, m, id); err != nil {
		t.Error(err)
	}
}

// TestVerifier_HalfRead: bytes that are wrong are a defect, also where the store
// goes away before it is known whether they are another snapshot's.
func TestVerifier_HalfRead(t *testing.T) {
	db := realDatabase(t)
	s := mem.New()
	m := take(t, newTaker(t, connect(t, startFakes(t, db, testserver.GoodSnapshot(db.raw)).urls...), s))
	raw := readObject(t, s, m.DataKey())
	raw[len(raw)/2] ^= 1
	if err := s.Delete(t.Context(), m.DataKey()); err != nil {
		t.Fatal(err)
	}
	create(t, s, m.DataKey(), raw)
	asked := 0
	v := newVerifier(&storagetest.Hook{Store: s, Before: func(_ context.Context, op storage.Op, _ string) error {
		if op == storage.OpStat {
			asked++
		}
		if asked > 1 {
			return errFault
		}
		return nil
	}}, "prod", t.TempDir())
	var defect *backup.DefectError
	if _, err := v.Verify(t.Context(), item(m)); !errors.As(err, &defect) || defect.Kind != backup.Changed ||
		!errors.Is(err, errFault) {
		t.Errorf("got %v", err)
	}
}

// TestInterop: any implementation of age and zstd turns a stored object back into
// etcd's file, which etcdutl accepts.
func TestInterop(t *testing.T) {
	testInterop(t, func(t *testing.T, object, key string, kind interop) []byte {
		raw, err := os.Open(object)
		if err != nil {
			t.Fatal(err)
		}
		defer raw.Close()
		plain := io.Reader(raw)
		if kind.age {
			text, err := os.ReadFile(key)
			if err != nil {
				t.Fatal(err)
			}
			id, err := age.ParseX25519Identity(strings.TrimSpace(string(text)))
			if err != nil {
				t.Fatal(err)
			}
			if plain, err = age.Decrypt(plain, id); err != nil {
				t.Fatal(err)
			}
		}
		if kind.zstd {
			d, err := zstd.NewReader(plain)
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			plain = d
		}
		got, err := io.ReadAll(plain)
		if err != nil {
			t.Fatal(err)
		}
		return got
	})
}

// interop is how an object is stored.
type interop struct{ zstd, age bool }

// testInterop stores objects of all kinds and lets decode read them again, with
// the identity in the file key.
func testInterop(t *testing.T, decode func(t *testing.T, object, key string, kind interop) []byte) {
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
		codec codec.Options
		kind  interop
	}{
		"Zstd":    {codec.Options{Compress: codec.Zstd}, interop{zstd: true}},
		"ZstdAge": {encryptTo(t, id.Recipient().String()), interop{zstd: true, age: true}},
		"Age":     {codec.Options{Recipients: encryptTo(t, id.Recipient().String()).Recipients}, interop{age: true}},
		"None":    {codec.Options{}, interop{}},
	} {
		t.Run(name, func(t *testing.T) {
			folder := t.TempDir()
			taker := newTaker(t, source, file.New(folder))
			taker.Codec = c.codec
			m := take(t, taker)
			got := decode(t, filepath.Join(folder, m.DataKey()), key, c.kind)
			if !bytes.Equal(got, want) {
				t.Fatalf("got %d bytes, want the %d that etcd sent", len(got), len(want))
			}
			checkStatus(t, got, m)
		})
	}
}
