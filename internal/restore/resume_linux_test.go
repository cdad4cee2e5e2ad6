package restore_test

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"testing"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/restore"
)

var errCrash = errors.New("crash")

// crashed begins a restore of the file at path and stops it at its first exchange. It
// returns what the restore would have said at its end.
func crashed(t testing.TB, path string, req request) restore.Summary {
	t.Helper()
	req.before = func(op, _ string) error {
		if op == "exchange" {
			return errCrash
		}
		return nil
	}
	src := fromFile(t, path)
	w, err := req.plan(t.Context(), src)
	must(t, err)
	w.Others = []restore.Command{{Member: "m2", Line: "restore m2"}}
	if err := req.execute(t.Context(), w, src); !errors.Is(err, errCrash) {
		t.Fatal(err)
	}
	return w.Summary()
}

// TestFinishInterrupted_AnotherRestore asks for other restores, each different in one
// thing, after one was interrupted. None may be taken for it.
func TestFinishInterrupted_AnotherRestore(t *testing.T) {
	f := newest(t)
	g := newGround(t, f, t.TempDir(), "old", true)
	req := g.request()
	req.Owner = &restore.Owner{UID: os.Geteuid(), GID: os.Getegid()}
	want := crashed(t, f.snapshot, req)
	about := fromFile(t, f.snapshot).About()
	was := contents(t, g.root)
	user := &restore.Owner{UID: 4711, GID: 4711}
	for what, change := range map[string]func(*request, *restore.Origin){
		"the snapshot":                  func(_ *request, o *restore.Origin) { o.SHA256[31]++ },
		"--initial-cluster":             func(r *request, _ *restore.Origin) { r.InitialCluster += ",m2=http://m2:1" },
		"--initial-cluster-token":       func(r *request, _ *restore.Origin) { r.Token = "" },
		"--bump-revision":               func(r *request, _ *restore.Origin) { r.BumpRevision = 1 },
		"--mark-compacted":              func(r *request, _ *restore.Origin) { r.MarkCompacted = true },
		"--clear-alarms":                func(r *request, _ *restore.Origin) { r.ClearAlarms = true },
		"--name":                        func(r *request, _ *restore.Origin) { r.Name = "m2" },
		"--data-dir":                    func(r *request, _ *restore.Origin) { r.DataDir += "2" },
		"--wal-dir":                     func(r *request, _ *restore.Origin) { r.WALDir = "" },
		"--initial-advertise-peer-urls": func(r *request, _ *restore.Origin) { r.PeerURLs = []string{g.Peer} },
		"--chown":                       func(r *request, _ *restore.Origin) { r.Owner = user },
		"--replace":                     func(r *request, _ *restore.Origin) { r.Replace = false },
		"--allow-running":               func(r *request, _ *restore.Origin) { r.AllowRunning = true },
	} {
		other, o := req, about
		change(&other, &o)
		done, err := restore.FinishInterrupted(t.Context(), other.Site, other.Request, o)
		var interrupted *restore.InterruptedError
		if !errors.As(err, &interrupted) || !slices.Equal(interrupted.Differs, []string{what}) {
			t.Errorf("another restore, by %s: %+v, error %v", what, done, err)
			continue
		}
		if !slices.Equal(interrupted.Dirs, g.dirs()) || !errors.As(err, new(*backup.RefusedError)) {
			t.Errorf("another restore, by %s: refused as %+v", what, interrupted)
		}
		same(t, "after another restore, by "+what, contents(t, g.root), was)
	}
	done, err := restore.FinishInterrupted(t.Context(), req.Site, req.Request, about)
	must(t, err)
	if done == nil || !reflect.DeepEqual(*done, want) {
		t.Errorf("the same restore has finished as\n%+v, want\n%+v", done, want)
	}
	if !g.isNew(t, f) {
		t.Error("it was not finished")
	}
	noLitter(t, g.root)
}

// TestFinishInterrupted_OtherFileAtThePath copies another snapshot over the one whose
// restore was interrupted.
func TestFinishInterrupted_OtherFileAtThePath(t *testing.T) {
	f := newest(t)
	g := newGround(t, f, t.TempDir(), "old", false)
	path := copyFile(t, f.snapshot, filepath.Join(t.TempDir(), "snapshot.db"))
	crashed(t, path, g.request())
	copyFile(t, fixtureOf(t, "3.6").snapshot, path)
	_, err := restore.FinishInterrupted(t.Context(), g.request().Site, g.request().Request, fromFile(t, path).About())
	var interrupted *restore.InterruptedError
	if !errors.As(err, &interrupted) || !slices.Equal(interrupted.Differs, []string{"the snapshot"}) {
		t.Errorf("with another file at the path: %v", err)
	}
	// The first file is gone for ever, and its restore can be finished all the same.
	done, err := restore.FinishAny(t.Context(), restore.Site{DataDir: g.DataDir})
	must(t, err)
	if done == nil || !g.isNew(t, f) {
		t.Errorf("not finished: %+v", done)
	}
}

// TestFinishInterrupted_SameFolder finds the folder again by another path to it.
func TestFinishInterrupted_SameFolder(t *testing.T) {
	f := newest(t)
	g := newGround(t, f, t.TempDir(), "old", false)
	crashed(t, f.snapshot, g.request())
	link := filepath.Join(t.TempDir(), "link")
	must(t, os.Symlink(g.root, link))
	req := g.request()
	req.DataDir = filepath.Join(link, filepath.Base(g.DataDir))
	done, err := restore.FinishInterrupted(t.Context(), req.Site, req.Request, fromFile(t, f.snapshot).About())
	must(t, err)
	if done == nil || !g.isNew(t, f) {
		t.Errorf("not finished: %+v", done)
	}
}

// TestCheckInterrupted changes nothing.
func TestCheckInterrupted(t *testing.T) {
	f := newest(t)
	g := newGround(t, f, t.TempDir(), "old", true)
	must(t, restore.CheckInterrupted(g.request().Site))
	crashed(t, f.snapshot, g.request())
	was := identities(t, g.root)
	if err := restore.CheckInterrupted(g.request().Site); !errors.As(err, new(*restore.InterruptedError)) {
		t.Errorf("error %v", err)
	}
	same(t, "after the check", identities(t, g.root), was)
	done, err := restore.FinishAny(t.Context(), g.request().Site)
	must(t, err)
	must(t, restore.CheckInterrupted(g.request().Site))
	if again, err := restore.FinishAny(t.Context(), g.request().Site); done == nil || again != nil || err != nil {
		t.Errorf("finished %+v, and again %+v, %v", done, again, err)
	}
}
