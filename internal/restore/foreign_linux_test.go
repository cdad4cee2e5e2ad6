package restore_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/restore"
)

// TestCheck_NoDirectoryOfEtcd gives a folder that is another one than was meant: one letter
// less, and --replace would move the data of many programs.
func TestCheck_NoDirectoryOfEtcd(t *testing.T) {
	f := newest(t)
	root := t.TempDir()
	g := newGround(t, f, filepath.Join(root, "lib"), "old", true)
	for _, name := range []string{"dpkg", "misc", "a b", "c", "d", "e"} {
		must(t, os.Mkdir(filepath.Join(root, "lib", name), 0o700))
	}
	more := newGround(t, f, filepath.Join(root, "more"), "old", false)
	must(t, os.WriteFile(filepath.Join(more.DataDir, "snapshot.db"), nil, 0o600))
	must(t, os.MkdirAll(filepath.Join(more.DataDir, "default.etcd", "member"), 0o700))
	file := newGround(t, f, filepath.Join(root, "file"), "empty", false)
	must(t, os.WriteFile(filepath.Join(file.DataDir, "member"), nil, 0o600))

	for name, c := range map[string]struct {
		site         restore.Site
		reason, hint string
	}{
		"Above": {
			restore.Site{DataDir: g.root}, "it is no directory of etcd: it has a b, c, d, data, dpkg and 3 more",
			"such as " + g.DataDir + ", or a new one",
		},
		"WAL": {
			restore.Site{DataDir: filepath.Join(root, "new"), WALDir: more.root}, "it is no directory of etcd: it has data",
			"of etcd itself, or a new one",
		},
		"More": {
			restore.Site{DataDir: more.DataDir}, "it has more than etcd puts there: default.etcd, snapshot.db",
			filepath.Join(more.DataDir, "snapshot.db") + " /ELSEWHERE/",
		},
		"NoFolder": {
			restore.Site{DataDir: file.DataDir}, "it is no directory of etcd: it has member", "itself, or a new one",
		},
		"OfMembers": {
			restore.Site{OutputDir: more.root}, "it has more than etcd puts there: default.etcd", "mv -- ",
		},
	} {
		t.Run(name, func(t *testing.T) {
			req := request{Site: c.site, Request: restore.Request{InitialCluster: "m1=http://10.0.0.1:2380"}}
			req.Name, req.Replace = "m1", true
			if req.OutputDir != "" {
				req.InitialCluster = "data=http://10.0.0.1:2380"
			}
			err := refuse(t, root, f, req, c.reason)
			var refused *backup.RefusedError
			var hint *backup.HintError
			if !errors.As(err, &refused) || refused.Override != "" || !errors.As(err, &hint) ||
				!strings.Contains(hint.Hint, c.hint) {
				t.Errorf("%v: %+v, want the hint %q", err, hint, c.hint)
			}
			// Without --replace nobody is told to give it.
			req.Replace = false
			err = refuse(t, root, f, req, "not empty")
			if errors.As(err, &refused) && refused.Override != "" {
				t.Errorf("%v: overridden by %s", err, refused.Override)
			}
		})
	}

	// What etcd itself leaves in its folders is no reason.
	must(t, os.RemoveAll(filepath.Join(more.DataDir, "default.etcd")))
	for _, name := range []string{"fixtures/peer", "log", "log.tmp", "log.broken.20261120.101500.5"} {
		must(t, os.MkdirAll(filepath.Join(more.DataDir, name), 0o700))
	}
	req := more.request()
	req.WALDir = filepath.Join(more.DataDir, "log")
	w, err := req.plan(t.Context(), fromFile(t, f.snapshot))
	if err != nil || w == nil {
		t.Errorf("over what etcd has left: %v", err)
	}
	// Little else is moved with it, and named.
	if notes := strings.Join(w.Notes(), "\n"); !strings.Contains(notes, "moved aside with the old data: snapshot.db") {
		t.Errorf("notes are %q", notes)
	}
	must(t, req.execute(t.Context(), w, fromFile(t, f.snapshot)))
	got := w.Summary().Targets[0]
	if len(got.Strays) != 1 || got.Strays[0] != "snapshot.db" {
		t.Errorf("the result is %+v", got)
	}
	if _, err := os.Stat(filepath.Join(got.OldData[0], "snapshot.db")); err != nil {
		t.Error(err)
	}
}
