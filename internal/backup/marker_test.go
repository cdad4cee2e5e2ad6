package backup_test

import (
	"bytes"
	"errors"
	"testing"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// TestMarker_Seal: no byte of a marker can change unseen. A flipped letter of the id
// would make another repository of it.
func TestMarker_Seal(t *testing.T) {
	m := backup.NewMarker(time.Date(2026, 11, 20, 10, 15, 0, 7, time.UTC))
	raw, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := backup.ParseMarker(raw); err != nil || got != m {
		t.Fatalf("got %+v, want %+v, error %v", got, m, err)
	}
	if again := reseal(t, raw); !bytes.Equal(again, raw) {
		t.Errorf("got\n%s, by the specification\n%s", raw, again)
	}
	for i := range raw {
		changed := bytes.Clone(raw)
		changed[i] ^= 1
		if _, err := backup.ParseMarker(changed); !errors.Is(err, backup.ErrCorrupt) {
			t.Fatalf("byte %d changed: got %v", i, err)
		}
	}
	for _, cut := range []int{0, 1, len(raw) / 2, len(raw) - 1} {
		if _, err := backup.ParseMarker(raw[:cut]); !errors.Is(err, backup.ErrCorrupt) {
			t.Errorf("cut to %d bytes: got %v", cut, err)
		}
	}
}
