package file_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/storage"
	"github.com/etcd-backupd/backupd/internal/storage/file"
)

// TestCheckPlace refuses folders that somebody would move together with their own.
func TestCheckPlace(t *testing.T) {
	root := t.TempDir()
	at := func(path string) string { return filepath.Join(root, path) }
	for _, dir := range []string{
		"v35/member/snap", "v36/member/wal", "log", "repo/prod", "free/member", "shared/member/x",
	} {
		if err := os.MkdirAll(at(dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{
		"log/0000000000000002-000000000000a3f1.wal", "repo/backupd.json", "free/other.wal",
	} {
		if err := os.WriteFile(at(path), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(at("v35"), at("link")); err != nil {
		t.Fatal(err)
	}
	for path, fits := range map[string]bool{
		"v35": false, "v35/new": false, "v35/new/deeper": false, "v36/backups": false, "v36/member": false,
		"link/new": false, "log": false, "log/new": false, "repo/prod": false, "repo/new": false,
		"repo": true, "free": true, "free/new": true, "shared/member/x": true, "new": true, "v35-new": true,
	} {
		for _, s := range []storage.Store{file.New(at(path)), storage.Answering(file.New(at(path)))} {
			err := storage.CheckPlace(s)
			if refused := errors.As(err, new(*backup.RefusedError)); refused == fits || refused == (err == nil) {
				t.Errorf("%s: %v, want it to fit: %v", path, err, fits)
			}
		}
		if _, err := os.Lstat(at(path)); err == nil || fits {
			continue
		}
		if err := file.New(at(path)).MakeRoot(); !errors.As(err, new(*backup.RefusedError)) {
			t.Errorf("make %s: %v, want a refusal", path, err)
		}
		if _, err := os.Lstat(at(path)); err == nil {
			t.Errorf("%s was made", path)
		}
	}
}
