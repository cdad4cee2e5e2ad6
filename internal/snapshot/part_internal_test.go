package snapshot

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/etcd-backupd/backupd/internal/disk"
)

// TestNewPart: what a killed save has left is removed, and nothing else.
func TestNewPart(t *testing.T) {
	dir := t.TempDir()
	living := filepath.Join(dir, ".db.2.part")
	for _, name := range []string{".db.1.part", living, ".db.3x.part", ".db..part", ".db2.4.part", "db.5.part",
		".db.6.party"} {
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(name)), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("db.5.part", filepath.Join(dir, ".db.7.part")); err != nil {
		t.Fatal(err)
	}
	other, err := os.OpenFile(living, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := disk.TryLock(other, disk.Exclusive); err != nil {
		t.Fatal(err)
	}
	f, err := newPart(dir, "db", slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if !disk.InUse(f.Name()) {
		t.Error("the new file is not locked: the next save would remove it")
	}
	if err := os.Remove(f.Name()); err != nil {
		t.Fatal(err)
	}
	var left []string
	entries, err := os.ReadDir(dir)
	for _, e := range entries {
		left = append(left, e.Name())
	}
	want := []string{".db..part", ".db.2.part", ".db.3x.part", ".db.6.party", ".db.7.part", ".db2.4.part", "db.5.part"}
	if err := errors.Join(err); err != nil || !slices.Equal(left, want) {
		t.Errorf("left %q, want %q, %v", left, want, err)
	}
}
