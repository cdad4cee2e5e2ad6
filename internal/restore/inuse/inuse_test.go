package inuse_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/etcd/client/pkg/v3/fileutil"
	"golang.org/x/sys/unix"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/restore/inuse"
)

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, path string) string {
	t.Helper()
	ok(t, os.MkdirAll(filepath.Dir(path), 0o700))
	ok(t, os.WriteFile(path, []byte("{}"), 0o600))
	return path
}

// serve locks files as etcd does: data/member/snap/db, and a segment in wal.
func serve(t *testing.T, data, wal string) {
	t.Helper()
	db, err := os.Open(write(t, filepath.Join(data, "member", "snap", "db")))
	ok(t, err)
	t.Cleanup(func() { ok(t, db.Close()) })
	ok(t, unix.Flock(int(db.Fd()), unix.LOCK_EX|unix.LOCK_NB))
	segment := write(t, filepath.Join(wal, "0000000000000000-0000000000000000.wal"))
	l, err := fileutil.TryLockFile(segment, os.O_WRONLY, 0o600)
	ok(t, err)
	t.Cleanup(func() { ok(t, l.Close()) })
}

func check(t *testing.T, dir string) error {
	t.Helper()
	if err := inuse.Above(dir); err != nil {
		return err
	}
	return inuse.Below(t.Context(), dir, func(name string) bool { return name == "lost+found" })
}

// refused fails unless dir is refused with these words.
func refused(t *testing.T, dir, words string) {
	t.Helper()
	err := check(t, dir)
	var refusal *backup.RefusedError
	if !errors.As(err, &refusal) || !strings.Contains(refusal.Reason, words) {
		t.Errorf("%s: %v, want a refusal with %q", dir, err, words)
	}
}

// TestServer_AnywhereNear finds the locks of a server above, in and below a folder, and
// behind links.
func TestServer_AnywhereNear(t *testing.T) {
	root := t.TempDir()
	at := func(elements ...string) string { return filepath.Join(append([]string{root}, elements...)...) }
	serve(t, at("lib", "etcd", "default.etcd"), at("log", "a"))
	ok(t, os.Mkdir(at("linked"), 0o700))
	ok(t, os.Symlink(at("lib", "etcd", "default.etcd"), at("linked", "data")))
	ok(t, os.Symlink(at("log", "a"), at("alias")))
	ok(t, os.Mkdir(at("one"), 0o700))
	ok(t, os.Symlink(at("lib", "etcd", "default.etcd", "member", "snap", "db"), at("one", "db")))
	ok(t, os.MkdirAll(at("x", "member"), 0o700))
	ok(t, os.Symlink(at("log", "a"), at("x", "member", "wal")))
	serve(t, at("v", "sub", "sub", "data"), at("v", "sub", "sub", "wal"))
	ok(t, os.Mkdir(at("far"), 0o700))
	ok(t, os.Symlink(at("v"), at("far", "x")))
	ok(t, os.Mkdir(at("hop"), 0o700))
	ok(t, os.Symlink(at("far"), at("hop", "x")))
	ok(t, os.Symlink(at("hop"), at("v", "back")))

	const held = "a running process holds "
	for _, dir := range []string{
		at("lib", "etcd", "default.etcd"),
		at("lib", "etcd"), // the usual layout of a package
		at("lib"),
		at("lib", "etcd", "default.etcd", "member"),
		at("lib", "etcd", "default.etcd", "member", "snap"),
		at("lib", "etcd", "default.etcd", "member", "new"),
		at("lib", "etcd", "default.etcd", "new", "deeper"),
		at("log"),
		at("log", "a"),
		at("log", "a", "new"),
		at("alias", "new"),
		at("linked"),
		at("linked", "data", "new"),
		at("one"),
		at("far"),
		at("hop"),
		at("x", "member"),
	} {
		refused(t, dir, held)
	}
	for _, dir := range []string{at("lib", "new"), at("lib", "etcd", "new"), at("log", "b"), at("elsewhere")} {
		ok(t, check(t, dir))
	}
}

// TestServer_Stopped finds nothing in the data of a server that has ended.
func TestServer_Stopped(t *testing.T) {
	root := t.TempDir()
	t.Run("Running", func(t *testing.T) {
		serve(t, root, filepath.Join(root, "member", "wal"))
		refused(t, root, "a running process holds ")
	})
	// What is no file of a server's is left alone, a pipe above all: it would block.
	ok(t, unix.Mkfifo(filepath.Join(root, "0.wal"), 0o600))
	ok(t, unix.Mkfifo(filepath.Join(root, "db"), 0o600))
	ok(t, os.Mkdir(filepath.Join(root, "1.wal"), 0o700))
	ok(t, os.Symlink(root, filepath.Join(root, "circle")))
	ok(t, os.Symlink("nowhere", filepath.Join(root, "dangling")))
	ok(t, os.Symlink("self", filepath.Join(root, "self")))
	ok(t, check(t, root))
}

// TestRepositoryAndSpool finds what backupd itself would lose.
func TestRepositoryAndSpool(t *testing.T) {
	root := t.TempDir()
	at := func(elements ...string) string { return filepath.Join(append([]string{root}, elements...)...) }
	write(t, at("srv", "repo", "backupd.json"))
	ok(t, os.Mkdir(at("srv", "repo", "prod"), 0o700))
	ok(t, os.Symlink(at("srv", "repo"), at("link")))
	for _, dir := range []string{at("srv", "repo"), at("srv", "repo", "prod"), at("link", "new")} {
		refused(t, dir, "is, or lies in, a backupd repository ("+at("srv", "repo")+")")
	}
	refused(t, at("srv"), "would be moved, and it holds a backupd repository ("+at("srv", "repo")+")")
	// Its marker may be gone.
	manifest := backup.Manifest{
		ID: "20261120T101500Z-r123456-k7q2xd", Timeline: "t1-usr5it",
		Capture: backup.Capture{Cluster: "prod", RaftIndex: 37, Suspect: []string{"diverged"}},
	}
	write(t, at("tmp", "unmarked", filepath.FromSlash(manifest.Key())))
	write(t, at("tmp", "free", "snapshots", "20261120T101500Z.json"))
	for _, dir := range []string{
		at("tmp", "unmarked"), at("tmp", "unmarked", "prod"), at("tmp", "unmarked", "new"),
		at("tmp", "unmarked", "prod", "data", "new"),
	} {
		refused(t, dir, "is, or lies in, a backupd repository")
	}
	refused(t, at("tmp"), "would be moved, and it holds a backupd repository")
	ok(t, check(t, at("tmp", "free")))
	ok(t, check(t, at("other")))
	for i, name := range []string{
		"backupd-abcdefghijkl.spool", "backupd-abcdefghijkl.pending.json", "backupd-prod@abc.record.json",
	} {
		dir := at("var", string(rune('a'+i)))
		write(t, filepath.Join(dir, "spool", name))
		refused(t, dir, "and it holds the spool of a backupd")
		ok(t, check(t, filepath.Join(dir, "new")))
	}
	write(t, at("lost", "lost+found", "backupd.json"))
	ok(t, check(t, at("lost")))
	write(t, at("deep", "a", "lost+found", "backupd.json")) // it is moved with its folder
	refused(t, at("deep"), "and it holds a backupd repository")
}

// TestHold sees a server by files that may only be read, keeps it out as long as it holds them,
// and no longer.
func TestHold(t *testing.T) {
	root := t.TempDir()
	segment := filepath.Join(root, "member", "wal", "0000000000000000-0000000000000000.wal")
	db := filepath.Join(root, "member", "snap", "db")
	hold := func() (files []*os.File, all error) {
		for _, path := range []string{db, segment} {
			f, err := os.Open(path)
			ok(t, err)
			files, all = append(files, f), errors.Join(all, inuse.Hold(root, f))
		}
		return files, all
	}
	t.Run("Running", func(t *testing.T) {
		serve(t, root, filepath.Dir(segment))
		files, err := hold()
		for _, f := range files {
			if one := inuse.Hold(root, f); !errors.As(one, new(*backup.RefusedError)) ||
				!strings.Contains(one.Error(), "a running process holds "+f.Name()) {
				t.Errorf("%v, of %v", one, err)
			}
			ok(t, f.Close())
		}
	})
	ok(t, os.Chmod(filepath.Dir(segment), 0o500))
	t.Cleanup(func() { ok(t, os.Chmod(filepath.Dir(segment), 0o700)) })
	files, err := hold()
	ok(t, err)
	again, err := hold() // two who read
	ok(t, err)
	if _, err := fileutil.TryLockFile(segment, os.O_WRONLY, 0o600); !errors.Is(err, fileutil.ErrLocked) {
		t.Errorf("a server could take the segment: %v", err)
	}
	if err := unix.Flock(int(files[0].Fd()), unix.LOCK_EX|unix.LOCK_NB); err == nil {
		t.Error("a server could take the database")
	}
	for _, f := range append(files, again...) {
		ok(t, f.Close())
	}
	t.Run("Free", func(t *testing.T) { serve(t, root, filepath.Dir(segment)) })
}
