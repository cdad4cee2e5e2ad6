package restore_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/restore"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// TestCheck_WALElsewhere restores over a server that kept its WAL elsewhere. Where that is
// forgotten, the server would replay the old WAL over the restored data.
func TestCheck_WALElsewhere(t *testing.T) {
	root := t.TempDir()
	walDir := filepath.Join(root, "log")
	c := testserver.StartCluster(t, testserver.Options{Version: "3.7", Args: []string{"--wal-dir", walDir}})
	client, m := c.Client(t), c.Members[0]
	_, err := client.Put(t.Context(), "before", "")
	must(t, err)
	snapshot := download(t, client, filepath.Join(root, "snapshot.db"))
	_, err = client.Put(t.Context(), "after", "")
	must(t, err)
	m.Kill()

	src := fromFile(t, snapshot)
	notes := func(change func(*request)) ([]string, error) {
		req := request{
			Site:    restore.Site{Name: "m1", DataDir: m.DataDir, Replace: true},
			Request: restore.Request{InitialCluster: "m1=" + m.PeerURL},
		}
		change(&req)
		w, err := req.plan(t.Context(), src)
		if err != nil {
			return nil, err
		}
		return w.Summary().Notes, nil
	}
	noted := func(what, want string, change func(*request)) {
		t.Helper()
		got, err := notes(change)
		must(t, err)
		if all := strings.Join(got, "\n"); strings.Contains(all, "over the restored data") != (want != "") ||
			!strings.Contains(all, want) {
			t.Errorf("%s: the notes are %q, want %q", what, got, want)
		}
	}

	var refused *backup.RefusedError
	forgotten := func(err error) bool {
		return errors.As(err, &refused) && refused.Override == "--wal-dir" &&
			strings.Contains(err.Error(), "no WAL in member/wal")
	}
	_, err = notes(func(*request) {})
	if !forgotten(err) {
		t.Errorf("--wal-dir was forgotten: %v", err)
	}
	// It has been moved to another disk, and its folder is still there.
	must(t, os.Mkdir(filepath.Join(m.DataDir, "member", "wal"), 0o700))
	_, err = notes(func(*request) {})
	if !forgotten(err) {
		t.Errorf("--wal-dir was forgotten, and member/wal is empty: %v", err)
	}
	all := filepath.Join(root, "all")
	must(t, os.MkdirAll(filepath.Join(all, "m1", "member", "snap"), 0o700))
	_, err = notes(func(r *request) { r.Name, r.DataDir, r.OutputDir = "", "", all })
	if !errors.As(err, &refused) || refused.Override != "" {
		t.Errorf("into an output directory: %v", err)
	}
	noted("into a cleaned directory", "if etcd is started with --wal-dir, give the same ", func(r *request) {
		r.DataDir = filepath.Join(root, "cleaned")
	})
	noted("with another one", "neither "+m.DataDir+" nor ", func(r *request) { r.WALDir = filepath.Join(root, "other") })
	noted("with the right one", "", func(r *request) { r.WALDir = walDir })
	usual := filepath.Join(m.DataDir, "member", "wal")
	if _, err := notes(func(r *request) { r.WALDir = usual }); !forgotten(err) {
		t.Errorf("the usual place is named, and has no WAL: %v", err)
	}
	noted("there is none", "", func(r *request) {
		r.DataDir = filepath.Join(root, "cleaned")
		r.WALDir = filepath.Join(r.DataDir, "member", "wal")
	})

	restoreFile(t, snapshot, request{
		Site:    restore.Site{Name: "m1", DataDir: m.DataDir, WALDir: walDir, Replace: true},
		Request: restore.Request{InitialCluster: "m1=" + m.PeerURL},
	})
	c = testserver.StartRestored(t, "3.7", []testserver.RestoredMember{{
		Name: "m1", DataDir: m.DataDir, WALDir: walDir, PeerURL: m.PeerURL, ClientURL: testserver.FreeURL(t),
	}})
	for key, want := range map[string]int64{"before": 1, "after": 0} {
		if got, err := c.Client(t).Get(t.Context(), key); err != nil || got.Count != want {
			t.Errorf("%d keys %q, want %d: %v", got.Count, key, want, err)
		}
	}
	// Data that has its WAL with it says so.
	c.Members[0].Kill()
	must(t, os.MkdirAll(usual, 0o700))
	must(t, os.WriteFile(filepath.Join(usual, "0.wal"), nil, 0o600))
	noted("in the usual layout", "", func(*request) {})
	if got, err := notes(func(*request) {}); err != nil || strings.Contains(strings.Join(got, "\n"), "is a link") {
		t.Errorf("in the usual layout: %q, %v", got, err)
	}
	// It is there by a link, to which no new WAL is restored.
	must(t, os.Rename(usual, filepath.Join(root, "disk2")))
	must(t, os.Symlink(filepath.Join(root, "disk2"), usual))
	got, err := notes(func(*request) {})
	must(t, err)
	if want := usual + " is a link to " + filepath.Join(root, "disk2"); !strings.Contains(strings.Join(got, "\n"), want) {
		t.Errorf("by a link: %q, want %q", got, want)
	}
}
