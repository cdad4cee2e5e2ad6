package publish

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// undo puts the only old data back, up to where before stops it, or finishes that.
func (s *site) undo(t *testing.T, before Hook) error {
	t.Helper()
	done, err := s.finishUndo(before)
	if done != nil || err != nil {
		return err
	}
	olds, err := Olds(s.dirs())
	ok(t, err)
	if len(olds) == 0 {
		return fs.ErrNotExist
	}
	var g Group
	for i, dir := range s.dirs() {
		f, err := NewFolder(Place{Dir: dir, Heart: []string{"member", ""}[i]}, nil)
		ok(t, err)
		f.Inside = s.inside
		ok(t, f.Undo(olds[0].At[dir]))
		g = append(g, f)
	}
	w, err := Begin([]Group{g}, before)
	if err != nil {
		return err
	}
	return errors.Join(w.Publish("old", "undo"), w.Close())
}

func (s *site) finishUndo(before Hook) (*Work, error) {
	return Finish(s.dirs(), Judge{
		func(w Work) error {
			if w.Source != "old" || string(w.Note) != `"undo"` {
				return fmt.Errorf("asked about %+v", w)
			}
			return nil
		},
		func(string, bool) error { return nil },
	}, before)
}

// checkUndoing fails if an etcd could be started on a mixture.
func (s *site) checkUndoing(t *testing.T, when string) {
	t.Helper()
	allowed := []string{"new new", "closed", "old old"}
	if !s.exchange { // between two renames there is no database to start from
		allowed = append(allowed, "none none", "none new", "none old")
	}
	if got := s.state(); !slices.Contains(allowed, got) {
		t.Errorf("%s: etcd would find %q, want one of %q", when, got, allowed)
	}
}

// restored is a site with restored data, and old data aside.
func restored(t *testing.T, l layout) (s *site, old map[string]string) {
	t.Helper()
	s = newSite(t, l)
	old = s.tree(t)
	ok(t, s.run(t, s.crashAt(1000)))
	s.checkDone(t, "restored")
	return s, old
}

// checkUndone fails unless everything is as it was before the restore, and all of the
// restored data is aside.
func (s *site) checkUndone(t *testing.T, old map[string]string, when string) {
	t.Helper()
	kept, back := map[string]int{}, s.tree(t)
	for path, is := range maps.Clone(back) {
		rel := path[len(s.root):]
		if strings.Contains(rel, stagingName) || strings.Contains(rel, AsidePrefix) {
			t.Errorf("%s: left behind: %s", when, rel)
		}
		if strings.Contains(rel, UndonePrefix) {
			delete(back, path)
			if !strings.HasPrefix(is, "d") {
				kept[filepath.Base(path)+is]++
			}
		}
	}
	if !maps.Equal(back, old) {
		t.Errorf("%s: there is %v, and was %v", when, back, old)
	}
	if want := map[string]int{"db---------- new": 1, "0.wal---------- new": 1}; !maps.Equal(kept, want) {
		t.Errorf("%s: the restored data that is aside is %v, want %v", when, kept, want)
	}
}

// oldLayouts are those with old data, to which an undo can go back.
func oldLayouts() []layout {
	return slices.DeleteFunc(layouts(), func(l layout) bool { return l.before != "old" })
}

// TestUndo_EveryCrash stops an undo before every single change, and then its finish at some
// other one, and then lets it finish.
func TestUndo_EveryCrash(t *testing.T) {
	for _, l := range oldLayouts() {
		t.Run(l.String(), func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(3, 4))
			for n := 0; ; n++ {
				s, old := restored(t, l)
				err := s.undo(t, s.crashAt(n))
				if err != nil && !errors.Is(err, errCrash) {
					t.Fatalf("crash %d: %v", n, err)
				}
				s.checkUndoing(t, fmt.Sprintf("crash %d", n))
				if err == nil {
					s.checkUndone(t, old, "without a crash")
					if n < 8 {
						t.Errorf("an undo of %d changes only", n)
					}
					if err := s.undo(t, s.crashAt(1000)); !errors.Is(err, fs.ErrNotExist) {
						t.Errorf("another undo: %v", err)
					}
					break
				}
				again := rng.IntN(12)
				when := fmt.Sprintf("crash %d, then at %d", n, again)
				if err := s.undo(t, s.crashAt(again)); err != nil && !errors.Is(err, errCrash) && !errors.Is(err, fs.ErrNotExist) {
					t.Fatalf("%s: %v", when, err)
				}
				s.checkUndoing(t, when)
				if err := s.undo(t, s.crashAt(1000)); err != nil && !errors.Is(err, fs.ErrNotExist) {
					t.Fatalf("%s, then finish: %v", when, err)
				}
				s.checkUndone(t, old, when+", then finished")
			}
		})
	}
}

// TestUndo_Abort gives an undo up that has moved nothing.
func TestUndo_Abort(t *testing.T) {
	for _, l := range oldLayouts() {
		s, _ := restored(t, l)
		before := s.tree(t)
		err := s.undo(t, func(op, path string) error {
			if op == "exchange" || op == "rename" && filepath.Base(path) != journalName {
				return errCrash
			}
			return nil
		})
		var unmoved *UnmovedError
		if !errors.As(err, &unmoved) {
			t.Fatalf("%s: %v, want an UnmovedError", l, err)
		}
		if _, err := Abort(s.dirs(), nil); err != nil || !maps.Equal(s.tree(t), before) {
			t.Errorf("%s: given up: %v, %v", l, err, s.tree(t))
		}
	}
}

// TestUndo_NoOldWAL takes the WAL of the restored data away where there was none before.
func TestUndo_NoOldWAL(t *testing.T) {
	for _, inside := range []bool{false, true} {
		s := newSite(t, layout{"apart", "old", inside, true})
		ok(t, os.RemoveAll(s.wal))
		if inside {
			ok(t, os.Mkdir(s.wal, 0o700))
		}
		old := s.tree(t)
		ok(t, s.run(t, s.crashAt(1000)))
		ok(t, s.undo(t, s.crashAt(1000)))
		s.checkUndone(t, old, fmt.Sprintf("inside is %v", inside))
	}
}

// TestOlds finds what each restore has moved aside, by its time, and nothing else.
func TestOlds(t *testing.T) {
	root := t.TempDir()
	data, wal := filepath.Join(root, "data"), filepath.Join(root, "log")
	for _, dir := range []string{
		"data.backupd-old-20261120T101500Z", "log.backupd-old-20261120T101500Z",
		"data/.backupd-old-20261121T101500Z-k7q2", "data.backupd-new-20261122T101500Z", "data2.backupd-old-20261123T101500Z",
	} {
		ok(t, os.MkdirAll(filepath.Join(root, dir), 0o700))
	}
	write(t, data+AsidePrefix+"20261124T101500Z", "a file")
	olds, err := Olds([]string{data, wal})
	ok(t, err)
	if len(olds) != 2 || olds[0].Stamp != "20261121T101500Z-k7q2" || len(olds[0].At) != 1 ||
		olds[0].At[data] != filepath.Join(data, AsidePrefix+olds[0].Stamp) ||
		olds[1].Stamp != "20261120T101500Z" || olds[1].At[data] != data+AsidePrefix+olds[1].Stamp ||
		olds[1].At[wal] != wal+AsidePrefix+olds[1].Stamp {
		t.Errorf("found %v", olds)
	}
	ok(t, os.Mkdir(filepath.Join(data, AsidePrefix+"20261120T101500Z"), 0o700))
	if _, err := Olds([]string{data}); !errors.As(err, new(*backup.RefusedError)) {
		t.Errorf("with two folders of one time: %v", err)
	}
}

// TestUndo_MountedNow refuses to put a folder back in the place of a mount point.
func TestUndo_MountedNow(t *testing.T) {
	s, _ := restored(t, layout{"", "old", false, true})
	olds, err := Olds(s.dirs())
	ok(t, err)
	f, err := NewFolder(Place{Dir: s.data, Heart: "member"}, nil)
	ok(t, err)
	f.Inside = true
	if err := f.Undo(olds[0].At[s.data]); !errors.As(err, new(*backup.RefusedError)) {
		t.Errorf("got %v", err)
	}
}
