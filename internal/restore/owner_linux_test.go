//go:build machine

package restore_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/restore"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

var chosenOwner = &restore.Owner{UID: 4321, GID: 4322}

// TestMachine_Owner: root gives the restored files to the owner of the old ones.
func TestMachine_Owner(t *testing.T) {
	testserver.Root(t)
	f := newest(t)
	for name, c := range map[string]struct {
		before  string
		withWAL bool
		dirs    int // how many of the folders belong to 1234:1235 before
		owner   *restore.Owner
		want    string
	}{
		"New":         {"new", true, 0, nil, "0:0"},
		"Empty":       {"empty", true, 2, nil, "1234:1235"},
		"Old":         {"old", false, 1, nil, "1234:1235"},
		"OldAndWAL":   {"old", true, 2, nil, "1234:1235"},
		"OnlyData":    {"old", true, 1, nil, "1234:1235"},
		"Chosen":      {"old", true, 2, chosenOwner, "4321:4322"},
		"ChosenOnNew": {"new", false, 0, chosenOwner, "4321:4322"},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGround(t, f, t.TempDir(), c.before, c.withWAL)
			if name == "OnlyData" {
				must(t, os.RemoveAll(g.WALDir))
			}
			req := g.request()
			req.Owner = c.owner
			for _, dir := range g.dirs()[:c.dirs] {
				chownAll(t, dir, 1234, 1235)
			}
			restoreFile(t, f.snapshot, req)
			for _, dir := range g.dirs() {
				for name, what := range contents(t, dir) {
					if !strings.Contains(what, " "+c.want+" ") {
						t.Errorf("%s/%s is %s, want owner %s", dir, name, what, c.want)
					}
				}
			}
		})
	}
}

func chownAll(t testing.TB, dir string, uid, gid int) {
	t.Helper()
	for name := range contents(t, dir) {
		must(t, os.Lchown(filepath.Join(dir, name), uid, gid))
	}
}

// TestMachine_NoPermission restores as a user who may not. It is refused before
// anything is touched.
func TestMachine_NoPermission(t *testing.T) {
	testserver.Root(t)
	f := newest(t)
	for name, c := range map[string]struct {
		before string
		mode   os.FileMode // of the parent folder, which belongs to root
		owner  *restore.Owner
		want   string
	}{
		"Parent": {"new", 0o755, nil, "permission denied"},
		"Others": {"empty", 0o777, nil, "only root can give"},
		"Chosen": {"new", 0o777, chosenOwner, "only root can give"},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			must(t, os.Chmod(filepath.Dir(root), 0o755))
			must(t, os.Chmod(root, c.mode))
			g := newGround(t, f, root, c.before, false)
			if c.before == "empty" {
				must(t, os.Chmod(g.DataDir, 0o755))
			}
			g.job.Owner = c.owner
			for _, g.DryRun = range []bool{true, false} {
				cmd, out := child(t, g.job)
				cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
				was := identities(t, root)
				err := cmd.Run()
				if err == nil || !strings.Contains(out.String(), c.want) {
					t.Errorf("dry run %v: %v, want %q:\n%s", g.DryRun, err, c.want, out)
				}
				same(t, fmt.Sprintf("after %v", err), identities(t, root), was)
			}
		})
	}
}

// TestMachine_PlantedJournal does not act on a journal that another user wrote.
func TestMachine_PlantedJournal(t *testing.T) {
	testserver.Root(t)
	root := t.TempDir()
	staging := filepath.Join(root, ".data.backupd-restore")
	must(t, os.Mkdir(staging, 0o700))
	victim := filepath.Join(root, "victim")
	must(t, os.WriteFile(victim, []byte("precious"), 0o600))
	must(t, os.WriteFile(filepath.Join(staging, "journal.json"),
		[]byte(`{"staging":["`+staging+`"],"moves":[{"from":"`+victim+`","to":"`+victim+`2"}]}`), 0o644))
	must(t, os.Lchown(staging, 12345, 12345))
	_, err := restore.FinishAny(t.Context(), restore.Site{DataDir: filepath.Join(root, "data")})
	var refused *backup.RefusedError
	if !errors.As(err, &refused) {
		t.Errorf("error %v, want a refusal", err)
	}
	if _, err := os.Stat(victim); errors.Is(err, fs.ErrNotExist) {
		t.Error("it was obeyed")
	}
}
