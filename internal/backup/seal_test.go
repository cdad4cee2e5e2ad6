package backup_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"testing"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// reseal gives raw, if it ends as a manifest does, the seal it should have.
// It is written from the specification, not from the code under test.
func reseal(t testing.TB, raw []byte) []byte {
	t.Helper()
	raw = bytes.Clone(raw)
	const after = len("\"\n}\n")
	if len(raw) < 64+after {
		return raw
	}
	place := raw[len(raw)-after-64 : len(raw)-after]
	copy(place, bytes.Repeat([]byte("0"), 64))
	sum := sha256.Sum256(raw)
	hex.Encode(place, sum[:])
	return raw
}

func TestSeal(t *testing.T) {
	raw := marshal(t, full())
	if again := reseal(t, raw); !bytes.Equal(again, raw) {
		t.Errorf("got\n%s, by the specification\n%s", raw, again)
	}
	if !bytes.Contains(raw, []byte("\n  \"seal\": \"")) {
		t.Errorf("got\n%s", raw)
	}
	if _, err := backup.ParseManifest(reseal(t, bytes.Replace(raw, []byte("m1"), []byte("m2"), 1))); err != nil {
		t.Errorf("sealed again: %v", err)
	}
}
