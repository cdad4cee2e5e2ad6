package restore

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// stagingName is part of the names of everything that a restore makes beside
// or inside its targets for as long as it runs.
const stagingName = ".backupd-restore"

// AsidePrefix stands between the name of a target and a time, in the name of
// what was moved aside.
const AsidePrefix = ".backupd-old-"

type slotKind int

const (
	dataSlot slotKind = iota
	walSlot
)

// slot is one folder that a restore puts into place: a data directory, or a WAL
// directory of its own.
//
// Usually it is built in a staging folder beside it and renamed. A mount point
// cannot be renamed, so there the staging folder is inside, on the same file
// system, and the contents are moved.
type slot struct {
	kind    slotKind
	dir     string
	staging string
	inside  bool
	exists  bool
	bare    bool     // exists, and nothing at all is in it
	old     []string // names of the entries that are in the way
	wal     string   // where the WAL is, below dir
	nested  string   // a mount point below dir, which cannot be moved
	keep    string   // an entry of dir that is left alone
	owner   *Owner   // of what is there; nil when nothing is
}

func newSlot(dir string, kind slotKind) (*slot, error) {
	abs, err := resolve(dir)
	if err != nil {
		return nil, err
	}
	s := &slot{kind: kind, dir: abs, wal: "."}
	if kind == dataSlot {
		s.wal = filepath.Join("member", "wal")
	}
	if err := s.look(); err != nil {
		return nil, err
	}
	mounts, err := mountPoints()
	if err != nil {
		return nil, err
	}
	for _, m := range mounts {
		if m != s.dir && within(m, s.dir) {
			s.nested = m
		}
	}
	s.stage(s.exists && (slices.Contains(mounts, s.dir) || unix.Access(filepath.Dir(s.dir), unix.W_OK) != nil))
	return s, nil
}

// resolve makes dir absolute and follows all links, also where its last
// elements are not there yet: what is behind a link is replaced, never the link.
func resolve(dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	rest := ""
	for d := abs; ; d, rest = filepath.Dir(d), filepath.Join(filepath.Base(d), rest) {
		real, err := filepath.EvalSymlinks(d)
		if err == nil {
			return filepath.Join(real, rest), nil
		}
		if _, lerr := os.Lstat(d); lerr == nil {
			return "", fmt.Errorf("follow %s: %w", d, err) // a link to nowhere, or in a circle
		}
		if !errors.Is(err, fs.ErrNotExist) || d == filepath.Dir(d) {
			return "", err
		}
	}
}

// stage decides where the staging folder is.
func (s *slot) stage(inside bool) {
	s.inside = inside
	s.staging = stagings(s.dir)[0]
	if inside {
		s.staging = stagings(s.dir)[1]
	}
}

// stagings lists where a staging folder for dir can be: beside it, or inside.
func stagings(dir string) []string {
	return []string{
		filepath.Join(filepath.Dir(dir), "."+filepath.Base(dir)+stagingName),
		filepath.Join(dir, stagingName),
	}
}

// exclude leaves the entry name of the folder alone: it is a mount point. The
// folder can then not be renamed either.
func (s *slot) exclude(name string) {
	s.keep, s.nested = name, ""
	s.old = slices.DeleteFunc(s.old, func(o string) bool { return o == name })
	s.stage(true)
}

// look finds out what is there already.
func (s *slot) look() error {
	st, err := os.Stat(s.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look at %s: %w", s.dir, err)
	}
	if !st.IsDir() {
		return fmt.Errorf("%s is not a directory", s.dir)
	}
	s.exists = true
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		s.owner = &Owner{int(sys.Uid), int(sys.Gid)}
	}
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return fmt.Errorf("data-dir %q not empty or could not be read: %w", s.dir, err)
	}
	s.bare = len(entries) == 0
	for _, e := range entries {
		// lost+found belongs to the file system, and the others are ours.
		if name := e.Name(); name != "lost+found" && !strings.HasPrefix(name, stagingName) && !strings.HasPrefix(name, AsidePrefix) {
			s.old = append(s.old, name)
		}
	}
	return nil
}

// changed reports whether something else is there than when s was made.
func (s *slot) changed() (bool, error) {
	now := &slot{kind: s.kind, dir: s.dir}
	if err := now.look(); err != nil {
		return true, err
	}
	for _, name := range now.old {
		if name != s.keep && !slices.Contains(s.old, name) {
			return true, nil
		}
	}
	// Ours are inside as well, where it must stay in place.
	return now.exists != s.exists || !s.inside && now.bare != s.bare, nil
}

func (s *slot) describe() string {
	switch {
	case len(s.old) > 0:
		return ", what is there is moved aside"
	case s.inside:
		return ", stays in place: contents are moved in"
	case s.exists:
		return ", empty now"
	}
	return ""
}

// tree is where the new contents are built.
func (s *slot) tree() string { return filepath.Join(s.staging, "new") }

// root is the folder whose file system must hold everything.
func (s *slot) root() string {
	if s.inside {
		return s.dir
	}
	return nearestExisting(filepath.Dir(s.dir))
}

func nearestExisting(dir string) string {
	for {
		if _, err := os.Stat(dir); err == nil || dir == filepath.Dir(dir) {
			return dir
		}
		dir = filepath.Dir(dir)
	}
}

func within(inner, outer string) bool {
	rel, err := filepath.Rel(outer, inner)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator))
}
