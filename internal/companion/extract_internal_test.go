package companion

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// TestUndo: after a failure only that is removed which was made, and not what somebody else has put
// into the folder meanwhile.
func TestUndo(t *testing.T) {
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	put := func(name string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte("THEIRS"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(dir+"/etc/theirs", 0o700); err != nil {
		t.Fatal(err)
	}
	put("etc/taken")
	w := &writer{root: root}
	for _, p := range []string{"/etc/pki/ca.key", "/etc/pki/deep/er/x", "/srv/y", "/etc/taken"} {
		f := backup.CompanionFile{Path: p, Mode: "0600"}
		if err := w.place(f, []byte("OURS")); (err == nil) == (p == "/etc/taken") {
			t.Error(p, err)
		}
	}
	if err := w.link(backup.CompanionFile{Path: "/srv/link", Link: "y"}); err != nil {
		t.Error(err)
	}
	put("etc/pki/deep/theirs")
	put("srv/link2")
	if err := w.undo(); err != nil {
		t.Error(err)
	}
	var left []string
	err = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if rel, rerr := filepath.Rel(dir, path); rerr == nil && path != dir {
			left = append(left, rel)
		}
		return err
	})
	want := []string{
		"etc", "etc/pki", "etc/pki/deep", "etc/pki/deep/theirs", "etc/taken", "etc/theirs", "srv", "srv/link2",
	}
	if err != nil || !slices.Equal(left, want) {
		t.Errorf("left %q, %v", left, err)
	}
	if raw, err := os.ReadFile(dir + "/etc/taken"); err != nil || string(raw) != "THEIRS" {
		t.Errorf("%q, %v", raw, err)
	}
}
