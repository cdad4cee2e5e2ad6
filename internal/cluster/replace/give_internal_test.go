package replace

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// TestCheckGive: only root can give a folder to another user, and that is known before the member
// is removed.
func TestCheckGive(t *testing.T) {
	me := Owner{1000, 1000}
	for want, c := range map[bool][]struct {
		owner *Owner
		user  Owner
	}{
		true:  {{nil, me}, {&me, me}, {&Owner{}, Owner{}}, {&me, Owner{}}},
		false: {{&Owner{}, me}, {&Owner{1000, 1001}, me}, {&Owner{1001, 1000}, me}},
	} {
		for _, c := range c {
			err := checkGive(&folders{dataDir: "/data", owner: c.owner}, c.user)
			var refused *backup.RefusedError
			var hint *backup.HintError
			if (err == nil) != want || err != nil && (!errors.As(err, &refused) || !errors.As(err, &hint) ||
				!strings.Contains(hint.Hint, "--chown 1000:1000")) {
				t.Errorf("%v to %v: %v", c.user, c.owner, err)
			}
		}
	}
}

// TestGive makes what is missing, and leaves what is there.
func TestGive(t *testing.T) {
	root := t.TempDir()
	f, err := newFolders(filepath.Join(root, "data"), filepath.Join(root, "log", "wal"))
	if err != nil {
		t.Fatal(err)
	}
	if err := give(f); err != nil {
		t.Fatal(err)
	}
	if made, _ := os.ReadDir(root); len(made) > 0 {
		t.Errorf("without an owner %v was made", made)
	}
	f.owner = &Owner{os.Geteuid(), os.Getegid()}
	if err := give(f); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(f.dataDir, "x"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := give(f); err != nil {
		t.Error(err)
	}
	for _, dir := range []string{f.dataDir, f.walDir} {
		if st, err := os.Stat(dir); err != nil || st.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v", dir, st, err)
		}
	}
	if _, err := os.Stat(filepath.Join(f.dataDir, "x")); err != nil {
		t.Error(err)
	}
}
