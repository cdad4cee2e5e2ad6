package undo_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"go.etcd.io/etcd/client/pkg/v3/fileutil"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/restore"
	"github.com/etcd-backupd/backupd/internal/restore/undo"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// jobVariable makes the test binary a program that does one undo.
const jobVariable = "BACKUPD_TEST_UNDO_JOB"

func TestMain(m *testing.M) {
	testserver.RunChild()
	if raw := os.Getenv(jobVariable); raw != "" {
		if err := runJob(raw); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if err := os.Setenv("GORACE", "atexit_sleep_ms=0 "+os.Getenv("GORACE")); err != nil {
		panic(err)
	}
	os.Exit(m.Run())
}

// job is one undo by a child process.
type job struct {
	DataDir, WALDir string
	KillStep        int // die before the n-th change, from 1
}

func runJob(raw string) error {
	var j job
	if err := json.Unmarshal([]byte(raw), &j); err != nil {
		return err
	}
	r := undo.Request{Site: restore.Site{DataDir: j.DataDir, WALDir: j.WALDir}}
	steps := 0
	before := func(string, string) error {
		if steps++; steps == j.KillStep {
			return syscall.Kill(os.Getpid(), syscall.SIGKILL)
		}
		return nil
	}
	ctx := context.Background()
	if done, err := undo.FinishBefore(ctx, r, before); done != nil || err != nil {
		return err
	}
	w, err := undo.Check(ctx, r)
	if err != nil {
		return err
	}
	_, err = w.ExecuteBefore(ctx, before)
	return err
}

// run reports whether the child was killed.
func (j job) run(t *testing.T) (killed bool) {
	t.Helper()
	raw, err := json.Marshal(j)
	must(t, err)
	out := &bytes.Buffer{}
	cmd := exec.CommandContext(t.Context(), "/proc/self/exe")
	cmd.Env = append(os.Environ(), jobVariable+"="+string(raw))
	cmd.Stdout, cmd.Stderr = out, out
	err = cmd.Run()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGKILL {
		return true
	}
	if err != nil {
		t.Fatalf("undo by a child: %v\n%s", err, out)
	}
	return false
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, path, content string) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(path), 0o700))
	must(t, os.WriteFile(path, []byte(content), 0o600))
}

// ground is a target with a restore, over data that was there before.
type ground struct {
	root, data, wal       string
	dataInside, walInside bool // what is moved aside stays in the folder, a mount point
}

const (
	segment = "0000000000000000-0000000000000000.wal"
	stamp   = "20261120T101500Z"
)

// newGround is what a restore leaves: the files of a member, old and new.
func newGround(t *testing.T, withWAL bool) *ground {
	t.Helper()
	g := &ground{root: t.TempDir()}
	g.data = filepath.Join(g.root, "data")
	if withWAL {
		g.wal = filepath.Join(g.root, "log")
	}
	g.put(t, "", "new")
	g.put(t, restore.AsidePrefix+stamp, "old")
	return g
}

// put makes the files of a member in folders with names that end so.
func (g *ground) put(t *testing.T, end, content string) {
	t.Helper()
	data := named(g.data, end, g.dataInside)
	write(t, filepath.Join(data, "member", "snap", "db"), content)
	wal := filepath.Join(data, "member", "wal")
	if g.wal != "" {
		wal = named(g.wal, end, g.walInside)
	}
	write(t, filepath.Join(wal, segment), content)
}

// named is the name of a folder that was moved aside.
func named(dir, end string, inside bool) string {
	if inside {
		return filepath.Join(dir, end)
	}
	return dir + end
}

func (g *ground) request() undo.Request {
	return undo.Request{Site: restore.Site{DataDir: g.data, WALDir: g.wal}}
}

// is returns what a server would find, as "database WAL".
func (g *ground) is() string {
	wal := g.wal
	if wal == "" {
		wal = filepath.Join(g.data, "member", "wal")
	}
	for _, path := range []string{g.data, filepath.Join(g.data, "member")} {
		if st, err := os.Lstat(path); err == nil && st.Mode().IsRegular() {
			return "closed"
		}
	}
	db, _ := os.ReadFile(filepath.Join(g.data, "member", "snap", "db"))
	log, _ := os.ReadFile(filepath.Join(wal, segment))
	return string(db) + " " + string(log)
}

// tree is everything below the root, with the contents of its files.
func (g *ground) tree(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	must(t, filepath.WalkDir(g.root, func(path string, d fs.DirEntry, err error) error {
		raw, _ := os.ReadFile(path)
		out[path[len(g.root):]] = string(raw)
		return err
	}))
	return out
}

// TestExecute_KilledAtEveryStep kills a real process before each change that it makes.
func TestExecute_KilledAtEveryStep(t *testing.T) {
	for _, withWAL := range []bool{false, true} {
		t.Run(fmt.Sprintf("WAL=%v", withWAL), func(t *testing.T) {
			t.Parallel()
			killAtEveryStep(t, func(t *testing.T) *ground { return newGround(t, withWAL) })
		})
	}
}

// killAtEveryStep undoes on a ground of its own for each change.
func killAtEveryStep(t *testing.T, prepare func(*testing.T) *ground) {
	t.Helper()
	for step := 1; ; step++ {
		g := prepare(t)
		killed := job{g.data, g.wal, step}.run(t)
		if is := g.is(); is != "new new" && is != "old old" && is != "closed" {
			t.Errorf("killed before change %d: a server would find %q", step, is)
		}
		if !killed {
			if step < 8 {
				t.Errorf("an undo of %d changes only", step)
			}
			break
		}
		if g.is() != "old old" || g.journal(t) {
			job{g.data, g.wal, 0}.run(t)
		}
		g.checkDone(t, step)
	}
}

func (g *ground) journal(t *testing.T) bool {
	for path := range g.tree(t) {
		if strings.HasSuffix(path, "journal.json") {
			return true
		}
	}
	return false
}

// checkDone fails unless the old data is back and the restored data is aside.
func (g *ground) checkDone(t *testing.T, step int) {
	t.Helper()
	if is := g.is(); is != "old old" {
		t.Errorf("killed before change %d, then run again: a server would find %q", step, is)
	}
	kept := 0
	for path, content := range g.tree(t) {
		if strings.Contains(path, ".backupd-new-") && content == "new" {
			kept++
		}
		if strings.Contains(path, restore.AsidePrefix) {
			t.Errorf("killed before change %d, then run again: left behind: %s", step, path)
		}
	}
	if kept != 2 {
		t.Errorf("killed before change %d, then run again: %d files of the restored data are there", step, kept)
	}
}

// TestExecute_ServerGoesOn restores over the data of a real server, and undoes that: the
// server goes on where it was, and the restored data is still good.
func TestExecute_ServerGoesOn(t *testing.T) {
	c := testserver.StartCluster(t, testserver.Options{})
	m, client := c.Members[0], c.Client(t)
	put := func(key string) {
		_, err := client.Put(t.Context(), key, "1")
		must(t, err)
	}
	put("before")
	stream, err := client.Snapshot(t.Context())
	must(t, err)
	snapshot := filepath.Join(t.TempDir(), "s.db")
	raw, err := io.ReadAll(stream)
	must(t, err)
	must(t, os.WriteFile(snapshot, raw, 0o600))
	put("after")

	r := undo.Request{Site: restore.Site{Name: "m1", DataDir: m.DataDir, Replace: true}}
	_, err = undo.Check(t.Context(), r)
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("before any restore: %v", err)
	}
	m.Terminate()
	src, err := restore.FromFile(t.Context(), snapshot, restore.RequireHash, nil)
	must(t, err)
	p, err := restore.NewPlan(src.About(), restore.Request{InitialCluster: m.Name + "=" + m.PeerURL})
	must(t, err)
	r.Site.Name = m.Name
	work, err := r.Site.Check(t.Context(), p)
	must(t, err)
	must(t, work.Execute(t.Context(), src, restore.Options{}))

	w, err := undo.Check(t.Context(), r)
	must(t, err)
	must(t, w.Try())
	done, err := w.Execute(t.Context())
	must(t, err)
	if len(done.Targets) != 1 || len(done.Targets[0].RestoredData) != 1 || len(done.Targets[0].PutBack) != 1 {
		t.Fatalf("done: %+v", done)
	}
	keys := func(dir string) int {
		s := testserver.StartRestored(t, "3.7", []testserver.RestoredMember{
			{Name: m.Name, PeerURL: m.PeerURL, ClientURL: testserver.FreeURL(t), DataDir: dir},
		})
		got, err := s.Client(t).Get(t.Context(), "after")
		must(t, err)
		s.Members[0].Terminate()
		return len(got.Kvs)
	}
	if n := keys(m.DataDir); n != 1 {
		t.Errorf("%d keys of after the snapshot", n)
	}
	if n := keys(done.Targets[0].RestoredData[0]); n != 0 {
		t.Errorf("%d keys of after the snapshot in the restored data", n)
	}
}

// TestCheck_Refused changes nothing where it is not clear what would come of it.
func TestCheck_Refused(t *testing.T) {
	for name, c := range map[string]struct {
		withWAL bool
		prepare func(t *testing.T, g *ground, r *undo.Request)
		want    string
	}{
		"InUse": {false, func(t *testing.T, g *ground, _ *undo.Request) {
			hold(t, filepath.Join(g.data, "member", "wal", segment))
		}, "a running process holds "},
		"OldInUse": {false, func(t *testing.T, g *ground, _ *undo.Request) {
			hold(t, filepath.Join(g.data+restore.AsidePrefix+stamp, "member", "wal", segment))
		}, "a running process holds "},
		"Several": {false, func(t *testing.T, g *ground, _ *undo.Request) {
			g.put(t, restore.AsidePrefix+"20261121T101500Z", "older")
		}, "there is old data of several restores"},
		"NoMember": {false, func(t *testing.T, g *ground, _ *undo.Request) {
			must(t, os.RemoveAll(filepath.Join(g.data+restore.AsidePrefix+stamp, "member")))
		}, "no data of a member"},
		"WALElsewhere": {true, func(_ *testing.T, _ *ground, r *undo.Request) {
			r.Site.WALDir = ""
		}, "its WAL is elsewhere"},
		"OtherWAL": {true, func(_ *testing.T, g *ground, r *undo.Request) {
			r.Site.WALDir = filepath.Join(g.root, "another")
		}, "is neither there nor was it moved out of"},
		"Strays": {false, func(t *testing.T, g *ground, _ *undo.Request) {
			for i := range 6 {
				write(t, filepath.Join(g.data, fmt.Sprint("stray", i)), "")
			}
		}, "it has more than etcd puts there: stray0"},
		"Repository": {false, func(t *testing.T, g *ground, _ *undo.Request) {
			write(t, filepath.Join(g.data, "repo", backup.MarkerKey), "{}")
		}, "it holds a backupd repository"},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGround(t, c.withWAL)
			r := g.request()
			c.prepare(t, g, &r)
			before := g.tree(t)
			_, err := undo.Check(t.Context(), r)
			if !errors.As(err, new(*backup.RefusedError)) || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want a refusal with %q", err, c.want)
			}
			if !maps.Equal(g.tree(t), before) {
				t.Error("something has changed")
			}
		})
	}
}

func hold(t *testing.T, path string) {
	t.Helper()
	l, err := fileutil.TryLockFile(path, os.O_WRONLY, 0o600)
	must(t, err)
	t.Cleanup(func() { must(t, l.Close()) })
}

// TestCheck_Chosen puts back the data of the restore that is named, of several.
func TestCheck_Chosen(t *testing.T) {
	for _, named := range []string{stamp, "/x/data" + restore.AsidePrefix + stamp + "/"} {
		g := newGround(t, true)
		g.put(t, restore.AsidePrefix+"20261121T101500Z", "newer")
		r := g.request()
		r.Old = named
		w, err := undo.Check(t.Context(), r)
		must(t, err)
		_, err = w.Execute(t.Context())
		must(t, err)
		if is := g.is(); is != "old old" {
			t.Errorf("%s: a server would find %q", named, is)
		}
		if _, err := undo.Check(t.Context(), r); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s, once more: %v", named, err)
		}
	}
}

// TestCheck_OutputDir puts back all members that one restore has replaced, and names the
// others.
func TestCheck_OutputDir(t *testing.T) {
	root := t.TempDir()
	for _, name := range []string{"m1", "m2", "m3"} {
		g := &ground{data: filepath.Join(root, name)}
		g.put(t, "", "new")
		if name != "m3" {
			g.put(t, restore.AsidePrefix+stamp, "old")
		}
	}
	must(t, os.RemoveAll(filepath.Join(root, "m2")))
	w, err := undo.Check(t.Context(), undo.Request{Site: restore.Site{OutputDir: root}})
	must(t, err)
	done, err := w.Execute(t.Context())
	must(t, err)
	if len(done.Targets) != 2 || len(done.Notes) != 1 || !strings.Contains(done.Notes[0], filepath.Join(root, "m3")) {
		t.Errorf("done: %+v", done)
	}
	for name, want := range map[string]string{"m1": "old old", "m2": "old old", "m3": "new new"} {
		if is := (&ground{data: filepath.Join(root, name)}).is(); is != want {
			t.Errorf("%s: %q, want %q", name, is, want)
		}
	}
}

// TestInterrupted: a restore is refused while an undo is unfinished, and an undo while a
// restore is.
func TestInterrupted(t *testing.T) {
	g := newGround(t, true)
	if !(job{g.data, g.wal, 12}).run(t) || !g.journal(t) {
		t.Fatal("not interrupted")
	}
	r := g.request()
	var interrupted *restore.InterruptedError
	if _, err := restore.FinishInterrupted(t.Context(), r.Site, restore.Request{}, restore.Origin{}); !errors.As(
		err, &interrupted) || len(interrupted.Differs) != 1 || interrupted.Differs[0] != "--undo" {
		t.Errorf("a restore: %v", err)
	}
	if is, err := undo.Interrupted(r.Site); !is || err != nil {
		t.Errorf("interrupted is %v, %v", is, err)
	}
	other := r
	other.Old = "20261121T101500Z"
	if _, err := undo.Finish(t.Context(), other); !errors.As(err, &interrupted) {
		t.Errorf("an undo to another time: %v", err)
	}
	done, err := undo.Finish(t.Context(), r)
	if err != nil || done == nil || done.Time != stamp || len(done.Targets[0].RestoredData) != 2 {
		t.Errorf("finished %+v, %v", done, err)
	}
	if is := g.is(); is != "old old" {
		t.Errorf("a server would find %q", is)
	}
}
