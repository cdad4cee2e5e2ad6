package disk_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/etcd-backupd/backupd/internal/disk"
)

// TestSeal: everything is synced, and each folder after all that it names. A sync that
// fails is the end: nothing of that tree may be put into place.
func TestSeal(t *testing.T) {
	root := t.TempDir()
	snap, wal := filepath.Join(root, "member", "snap"), filepath.Join(root, "member", "wal")
	db, segment := filepath.Join(snap, "db"), filepath.Join(wal, "0.wal")
	if err := errors.Join(os.MkdirAll(snap, 0o700), os.MkdirAll(wal, 0o700),
		os.WriteFile(db, []byte("x"), 0o600), os.WriteFile(segment, []byte("x"), 0o600)); err != nil {
		t.Fatal(err)
	}
	want := []string{db, segment, wal, snap, filepath.Join(root, "member"), root}
	for _, path := range []string{db, segment} { // as etcd's code leaves them under umask 000
		if err := os.Chmod(path, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	errFault := errors.New("the disk is on fire")
	for failAt := range len(want) + 1 {
		var synced []string
		err := disk.Seal(root, os.Geteuid(), os.Getegid(), func(path string) error {
			synced = append(synced, path)
			if len(synced)-1 == failAt {
				return errFault
			}
			return disk.Sync(path)
		})
		if failed := errors.Is(err, errFault); failed != (failAt < len(want)) {
			t.Errorf("sync %d fails: got %v", failAt, err)
		}
		if all := want[:min(failAt+1, len(want))]; !slices.Equal(synced, all) {
			t.Errorf("sync %d fails: synced %q, want %q", failAt, synced, all)
		}
	}
	for _, path := range []string{db, segment} {
		if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
}
