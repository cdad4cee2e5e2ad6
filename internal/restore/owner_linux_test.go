package restore_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/etcd-backupd/backupd/internal/restore"
)

// TestExecute_Owner gives the restored data to the owner of the old data. Only
// root can; others are refused before anything is touched.
func TestExecute_Owner(t *testing.T) {
	f := newest(t)
	chosen := &restore.Owner{UID: 4321, GID: 4322}
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
		"Chosen":      {"old", true, 2, chosen, "4321:4322"},
		"ChosenOnNew": {"new", false, 0, chosen, "4321:4322"},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGround(t, f, t.TempDir(), c.before, c.withWAL)
			if name == "OnlyData" {
				must(t, os.RemoveAll(g.WALDir))
			}
			req := g.request()
			req.Owner = c.owner
			if os.Geteuid() != 0 {
				if c.owner != nil {
					refuse(t, g.root, f, req, "only root can give")
				}
				return
			}
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

// TestExecute_NoPermission restores as a user without permission.
func TestExecute_NoPermission(t *testing.T) {
	f := newest(t)
	for name, c := range map[string]struct {
		forbid func(g *ground) string
		want   string
	}{
		"Parent": {func(g *ground) string { return g.root }, "permission denied"},
		"Others": {func(g *ground) string { return "" }, "only root can give"},
	} {
		t.Run(name, func(t *testing.T) {
			root := t.TempDir()
			must(t, os.Chmod(filepath.Dir(root), 0o755))
			before := "new"
			if name == "Others" {
				before = "empty"
			}
			g := newGround(t, f, root, before, false)
			cmd, out := child(t, g.job)
			if os.Geteuid() == 0 {
				must(t, os.Chmod(root, map[string]os.FileMode{"Parent": 0o755, "Others": 0o777}[name]))
				cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
			} else if dir := c.forbid(g); dir != "" {
				must(t, os.Chmod(dir, 0o555))
				t.Cleanup(func() { must(t, os.Chmod(dir, 0o755)) })
			} else {
				return // only root can make another user's folder
			}
			if before == "empty" {
				must(t, os.Chmod(g.DataDir, 0o755))
			}
			was := identities(t, root)
			err := cmd.Run()
			if err == nil || !strings.Contains(out.String(), c.want) {
				t.Errorf("%v, want %q:\n%s", err, c.want, out)
			}
			same(t, fmt.Sprintf("after %v", err), identities(t, root), was)
		})
	}
}
