package publish

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/etcd-backupd/backupd/internal/backup"
)

var update = flag.Bool("update", false, "rewrite golden files")

// layout is a target in one state, before a restore puts a built one there.
type layout struct {
	wal      string // "", "apart" or "nested": where the WAL is
	before   string // "nothing", "empty" or "old": the contents
	inside   bool   // the folders must stay, as mount points must
	exchange bool   // the file system can exchange two names
}

func (l layout) String() string {
	return fmt.Sprintf("WAL=%s/Before=%s/Inside=%v/Exchange=%v", l.wal, l.before, l.inside, l.exchange)
}

func layouts() []layout {
	var out []layout
	for _, wal := range []string{"", "apart", "nested"} {
		for _, before := range []string{"nothing", "empty", "old"} {
			for _, inside := range []bool{false, true} {
				for _, exchange := range []bool{true, false} {
					if l := (layout{wal, before, inside, exchange}); !(inside && before == "nothing") {
						out = append(out, l)
					}
				}
			}
		}
	}
	return out
}

// site is a layout on disk.
type site struct {
	layout
	root, data, wal string
}

func newSite(t *testing.T, l layout) *site {
	t.Helper()
	s := &site{layout: l, root: scratch(t)}
	s.data = filepath.Join(s.root, "data")
	s.wal = map[string]string{
		"":       filepath.Join(s.data, "member", "wal"),
		"apart":  filepath.Join(s.root, "log"),
		"nested": filepath.Join(s.data, "log"),
	}[l.wal]
	if l.before != "nothing" {
		ok(t, os.MkdirAll(s.data, 0o700))
		if l.wal == "apart" {
			ok(t, os.MkdirAll(s.wal, 0o700))
		}
	}
	if l.before == "old" {
		write(t, filepath.Join(s.data, "member", "snap", "db"), "old")
		write(t, filepath.Join(s.data, "notes"), "old")
		write(t, filepath.Join(s.wal, "0.wal"), "old")
		write(t, filepath.Join(s.wal, "1.wal"), "old")
	}
	return s
}

// scratch is a folder in memory, if there is one: thousands of syncs cost nothing
// there.
func scratch(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "backupd-restore-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { ok(t, os.RemoveAll(dir)) })
	return dir
}

func write(t *testing.T, path, content string) {
	t.Helper()
	ok(t, os.MkdirAll(filepath.Dir(path), 0o700))
	ok(t, os.WriteFile(path, []byte(content), 0o600))
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// dirs lists the folders that are put into place.
func (s *site) dirs() []string {
	if s.layout.wal == "apart" {
		return []string{s.data, s.wal}
	}
	return []string{s.data}
}

// run builds a data directory, and a WAL directory if it is apart, as a restore does
// and publishes it, up to where before stops it.
func (s *site) run(t *testing.T, before Hook) error {
	t.Helper()
	var g Group
	for i, dir := range s.dirs() {
		f, err := NewFolder(Place{Dir: dir, Heart: []string{"member", ""}[i]}, nil)
		ok(t, err)
		if f.Exists {
			f.Inside = s.inside
		}
		ok(t, f.CheckJournal())
		g = append(g, f)
	}
	w, err := Begin([]Group{g}, before)
	if err != nil {
		return err
	}
	write(t, filepath.Join(g[0].Tree(), "member", "snap", "db"), "new")
	write(t, filepath.Join(g[0].Staging(), "scratch"), "new")
	tree := filepath.Join(g[0].Tree(), strings.TrimPrefix(s.wal, s.data))
	if s.layout.wal == "apart" {
		tree = g[1].Tree()
	}
	write(t, filepath.Join(tree, "0.wal"), "new")
	for _, f := range g {
		if changed, err := f.Changed(); changed || err != nil {
			t.Errorf("%s has changed: %v, %v", f.Dir, changed, err)
		}
	}
	return errors.Join(w.Publish("test", "a note"), w.Close())
}

// finish completes an interrupted restore. A database that somebody has locked is in
// use.
func (s *site) finish(before Hook) (*Work, error) {
	accept := func(w Work) error {
		if w.Source != "test" || string(w.Note) != `"a note"` || !slices.Equal(w.Dirs, s.dirs()) {
			return fmt.Errorf("asked about %+v", w)
		}
		return nil
	}
	return Finish(s.dirs(), Judge{accept, func(dir string, _ bool) error {
		f, err := os.Open(filepath.Join(dir, "member", "snap", "db"))
		if absent(err) {
			return nil
		}
		if err != nil {
			return err
		}
		defer f.Close()
		if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
			return &backup.RefusedError{Reason: dir + " is in use"}
		}
		return nil
	}}, before)
}

// rerun does the same as the command does after a crash.
func (s *site) rerun(t *testing.T, before Hook) error {
	t.Helper()
	done, err := s.finish(before)
	if err != nil {
		return err
	}
	if done != nil {
		if done.Source != "test" || string(done.Note) != `"a note"` || !slices.Equal(done.Dirs, s.dirs()) {
			t.Errorf("finished %+v", done)
		}
		return nil
	}
	if s.state() == "new new" {
		return nil // killed after the last change; the command would refuse now
	}
	return s.run(t, before)
}

// state is the data that an etcd started now would find, as "database WAL".
func (s *site) state() string {
	st, err := os.Lstat(s.data)
	if err == nil && !st.IsDir() {
		return "closed"
	}
	if st, err := os.Lstat(filepath.Join(s.data, "member")); err == nil && !st.IsDir() {
		return "closed"
	}
	return s.read(filepath.Join(s.data, "member", "snap", "db")) + " " + s.segments()
}

func (s *site) read(path string) string {
	raw, err := os.ReadFile(path)
	if err != nil {
		return "none"
	}
	return string(raw)
}

func (s *site) segments() string {
	found := map[string]bool{}
	first, second := s.read(filepath.Join(s.wal, "0.wal")), s.read(filepath.Join(s.wal, "1.wal"))
	for _, is := range []string{first, second} {
		if is != "none" {
			found[is] = true
		}
	}
	switch {
	case len(found) == 0:
		return "none"
	case len(found) == 2:
		return "mixed"
	case found["old"] && (first == "none" || second == "none"):
		return "partial"
	}
	return strings.Join(keys(found), "")
}

func keys(m map[string]bool) []string {
	var out []string
	for k := range maps.Keys(m) {
		out = append(out, k)
	}
	return out
}

// check fails if an etcd could be started on a mixture.
func (s *site) check(t *testing.T, when string) {
	t.Helper()
	allowed := []string{"new new", "closed", "none none"}
	if s.before == "old" {
		allowed[2] = "old old"
		if !s.exchange {
			// Between two renames there is no database to start from.
			allowed = append(allowed, "none none", "none old")
		}
	}
	if !s.exchange && s.layout.wal != "" {
		allowed = append(allowed, "none new") // opened again by two renames
	}
	got := s.state()
	for _, a := range allowed {
		if got == a {
			return
		}
	}
	t.Errorf("%s: etcd would find %q, want one of %q", when, got, allowed)
}

// checkDone fails unless everything is in place and everything old is aside.
func (s *site) checkDone(t *testing.T, when string) {
	t.Helper()
	if got := s.state(); got != "new new" {
		t.Errorf("%s: etcd would find %q, want the new one", when, got)
	}
	aside := map[string]int{}
	ok(t, filepath.WalkDir(s.root, func(path string, d fs.DirEntry, err error) error {
		rel := path[len(s.root):]
		if strings.Contains(filepath.Base(path), stagingName) || d.Name() == "scratch" {
			t.Errorf("%s: left behind: %s", when, rel)
		}
		if strings.Contains(rel, AsidePrefix) && !d.IsDir() {
			aside[d.Name()+" "+s.read(path)]++
		}
		return err
	}))
	want := map[string]int{}
	if s.before == "old" {
		want = map[string]int{"db old": 1, "notes old": 1, "0.wal old": 1, "1.wal old": 1}
	}
	if !maps.Equal(aside, want) {
		t.Errorf("%s: moved aside: %v, want %v", when, aside, want)
	}
	if n := s.asides(t); s.before != "old" && n > 0 {
		t.Errorf("%s: %d empty folders were kept", when, n)
	}
}

func (s *site) asides(t *testing.T) int {
	n := 0
	ok(t, filepath.WalkDir(s.root, func(path string, _ fs.DirEntry, err error) error {
		if strings.Contains(filepath.Base(path), AsidePrefix) {
			n++
		}
		return err
	}))
	return n
}

var errCrash = errors.New("crash")

// crashAt stops everything from the n-th change on, clean-up included.
func (s *site) crashAt(n int) Hook {
	count := 0
	return func(op, _ string) error {
		if count++; count > n {
			return errCrash
		}
		if op == "exchange" && !s.exchange {
			return unix.EINVAL
		}
		return nil
	}
}

// TestPublish_EveryCrash stops publishing before every single change, and then
// finishing at some other one, and then lets it finish.
func TestPublish_EveryCrash(t *testing.T) {
	for _, l := range layouts() {
		t.Run(l.String(), func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(1, 2))
			for n := 0; ; n++ {
				s := newSite(t, l)
				err := s.run(t, s.crashAt(n))
				if err != nil && !errors.Is(err, errCrash) {
					t.Fatalf("crash %d: %v", n, err)
				}
				s.check(t, fmt.Sprintf("crash %d", n))
				if err == nil {
					s.checkDone(t, "without a crash")
					break
				}
				again := rng.IntN(12)
				if err := s.rerun(t, s.crashAt(again)); err != nil && !errors.Is(err, errCrash) {
					t.Fatalf("crash %d, then at %d: %v", n, again, err)
				}
				s.check(t, fmt.Sprintf("crash %d, then at %d", n, again))
				if err := s.rerun(t, s.crashAt(1000)); err != nil {
					t.Fatalf("crash %d, then at %d, then finish: %v", n, again, err)
				}
				s.checkDone(t, fmt.Sprintf("crash %d, then at %d, then finished", n, again))
			}
		})
	}
}

// TestPublish_Order compares the order of all changes, and of the syncs between
// them, with a golden file.
func TestPublish_Order(t *testing.T) {
	var b strings.Builder
	for _, l := range []layout{
		{"", "nothing", false, true}, {"", "old", false, true}, {"apart", "old", false, true},
		{"", "old", true, true}, {"apart", "old", false, false},
	} {
		s := newSite(t, l)
		fmt.Fprintf(&b, "# %s\n", l)
		crash := s.crashAt(1000)
		ok(t, s.run(t, func(op, path string) error {
			rel, err := filepath.Rel(s.root, path)
			ok(t, err)
			stamp := time.Now().UTC().Format("20060102T")
			if i := strings.Index(rel, stamp); i >= 0 {
				rel = rel[:i] + "TIME" + rel[i+len(stamp)+7:]
			}
			fmt.Fprintf(&b, "%s %s\n", op, rel)
			return crash(op, path)
		}))
	}
	golden := filepath.Join("testdata", "publish.txt")
	if *update {
		write(t, golden, b.String())
	}
	want, err := os.ReadFile(golden)
	ok(t, err)
	if b.String() != string(want) {
		t.Errorf("the order of changes is\n%s\nwant that of %s; with -update it is rewritten", b.String(), golden)
	}
}

// TestPublish_InUse begins to use a target while its restore is interrupted.
func TestPublish_InUse(t *testing.T) {
	for _, l := range layouts() {
		if !l.exchange || l.before != "old" {
			continue
		}
		t.Run(l.String(), func(t *testing.T) {
			t.Parallel()
			for n := 0; ; n++ {
				s := newSite(t, l)
				err := s.run(t, s.crashAt(n))
				if err == nil {
					break
				}
				if s.state() == "closed" {
					continue
				}
				s.useAndRerun(t, n)
			}
		})
	}
}

// useAndRerun is an etcd that was started after the crash: it holds its
// database, and it has a second segment now.
func (s *site) useAndRerun(t *testing.T, n int) {
	t.Helper()
	is := s.read(filepath.Join(s.data, "member", "snap", "db"))
	write(t, filepath.Join(s.wal, "1.wal"), is)
	f, err := os.Open(filepath.Join(s.data, "member", "snap", "db"))
	ok(t, err)
	defer f.Close()
	ok(t, unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB))
	done, err := s.finish(nil)
	if got := s.read(filepath.Join(s.data, "member", "snap", "db")); got != is {
		t.Errorf("crash %d: the database in use was %s and is %s", n, is, got)
	}
	if got := s.read(filepath.Join(s.wal, "1.wal")); got != is {
		t.Errorf("crash %d: a segment in use was %s and is %s", n, is, got)
	}
	if is == "old" && done != nil {
		t.Errorf("crash %d: finished on a running server", n)
	}
	var refused *backup.RefusedError
	if err != nil && !errors.As(err, &refused) {
		t.Errorf("crash %d: with the %s data in use: %v", n, is, err)
	}
}
