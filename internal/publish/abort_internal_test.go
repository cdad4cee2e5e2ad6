package publish

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// tree is everything below the root of s, with the contents of its files.
func (s *site) tree(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	ok(t, filepath.WalkDir(s.root, func(path string, d fs.DirEntry, err error) error {
		if err == nil && path != s.root {
			out[path] = d.Type().String() + " " + s.read(path)
		}
		return err
	}))
	return out
}

// TestAbort_EveryCrash gives up a restore that was stopped before any single change.
func TestAbort_EveryCrash(t *testing.T) {
	const seed = 5
	for _, l := range layouts() {
		t.Run(fmt.Sprintf("%s/Seed=%d", l, seed), func(t *testing.T) {
			t.Parallel()
			rng := rand.New(rand.NewPCG(seed, seed))
			given, begun := 0, 0
			for n := 0; ; n++ {
				stopped, done := 1000, false // the changes after which the giving up is stopped, too
				for range 2 {
					s := newSite(t, l)
					before := s.tree(t)
					if done = s.run(t, s.crashAt(n)) == nil; done {
						break
					}
					when := fmt.Sprintf("crash %d, given up until %d", n, stopped)
					untouched, err := Untouched(s.dirs())
					ok(t, err)
					work, err := Abort(s.dirs(), s.crashAt(stopped))
					switch {
					case work != nil && err == nil:
						given++
						if !untouched || work.Source != "test" || !maps.Equal(s.tree(t), before) {
							t.Errorf("%s: untouched is %v, there is now %v", when, untouched, s.tree(t))
						}
					case errors.As(err, new(*backup.RefusedError)):
						begun++
						if untouched {
							t.Errorf("%s: refused, and nothing was moved: %v", when, err)
						}
					case err != nil && !errors.Is(err, errCrash):
						t.Fatalf("%s: %v", when, err)
					}
					s.check(t, when)
					if err := s.rerun(t, s.crashAt(1000)); err != nil {
						t.Fatalf("%s, then again: %v", when, err)
					}
					s.checkDone(t, when+", then again")
					stopped = rng.IntN(4)
				}
				if done {
					break
				}
			}
			if given == 0 || begun == 0 {
				t.Errorf("given up %d times, refused %d times: both must be tried", given, begun)
			}
		})
	}
}

// TestPublish_CannotMove: no rename works once the journal is there. The error says that
// everything is as it was, and the restore can be given up.
func TestPublish_CannotMove(t *testing.T) {
	for _, l := range layouts() {
		s := newSite(t, l)
		before := s.tree(t)
		err := s.run(t, func(op, path string) error {
			if op == "exchange" || op == "rename" && filepath.Base(path) != journalName {
				return unix.EXDEV
			}
			return nil
		})
		var unmoved *UnmovedError
		if !errors.As(err, &unmoved) || !errors.Is(err, unix.EXDEV) || unmoved.Source != "test" {
			t.Fatalf("%s: %v, want an UnmovedError", l, err)
		}
		if _, err := Abort(s.dirs(), nil); err != nil || !maps.Equal(s.tree(t), before) {
			t.Errorf("%s: given up: %v, %v", l, err, s.tree(t))
		}
	}
}

// TestTry_ReadOnly finds out before anything is built that nothing can be put into place.
func TestTry_ReadOnly(t *testing.T) {
	s := newSite(t, layout{"", "old", false, true})
	f, err := NewFolder(Place{Dir: s.data}, nil)
	ok(t, err)
	before := s.tree(t)
	ok(t, f.Try(nil))
	if !maps.Equal(s.tree(t), before) {
		t.Errorf("a try has changed %v", s.tree(t))
	}
	// A killed one has left something.
	write(t, filepath.Join(f.Staging()+"-try", "full", "up", "x"), "")
	ok(t, f.Try(nil))
	if !maps.Equal(s.tree(t), before) {
		t.Errorf("a second try has changed %v", s.tree(t))
	}
	if os.Geteuid() == 0 {
		return // everything may be written
	}
	ok(t, os.Chmod(s.root, 0o500))
	defer os.Chmod(s.root, 0o700) // for the clean-up
	if err := f.Try(nil); !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), s.root) {
		t.Errorf("in a folder that is read-only: %v", err)
	}
}
