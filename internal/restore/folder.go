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

	"github.com/etcd-backupd/backupd/internal/disk"
)

// stagingName is part of the name of everything that a running restore makes
// beside or inside its targets.
const stagingName = ".backupd-restore"

// AsidePrefix comes between the name of a target and a time, in the names of
// folders that were moved aside.
const AsidePrefix = ".backupd-old-"

type folderKind int

const (
	dataFolder folderKind = iota
	walFolder
)

// usualWAL is where etcd has its WAL in a data directory.
var usualWAL = filepath.Join("member", "wal")

// place is a folder in the file system and its use.
type place struct {
	kind  folderKind
	dir   string
	wal   string // where the WAL is, below dir
	stays string // an entry of dir that is not moved: a mount point
}

// contents describes a folder as it was found.
type contents struct {
	exists bool
	bare   bool     // it exists and has no entry at all
	old    []string // names of the entries that are in the way
	owner  *Owner   // nil when it does not exist
}

// folder is one folder that a restore puts into place: a data directory, or a
// WAL directory of its own.
//
// Usually it is built in a staging folder beside it and renamed. A mount point
// cannot be renamed, so there the staging folder is inside, on the same file
// system, and the contents are moved.
type folder struct {
	place
	contents
	inside bool
	nested string // a mount point below dir, which cannot be moved
}

func newFolder(p place, mounts []string) (*folder, error) {
	found, err := p.read()
	if err != nil {
		return nil, err
	}
	f := &folder{place: p, contents: found}
	for _, m := range mounts {
		if m != p.dir && within(m, p.dir) && (p.stays == "" || !within(m, filepath.Join(p.dir, p.stays))) {
			f.nested = m
		}
	}
	f.inside = p.stays != "" || found.exists &&
		(slices.Contains(mounts, p.dir) || unix.Access(filepath.Dir(p.dir), unix.W_OK) != nil)
	return f, nil
}

// resolve makes dir absolute and follows all links, also where its last
// elements do not exist yet. A restore replaces the folder behind a link, never
// the link.
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
			return "", fmt.Errorf("follow %s: %w", d, err) // a link without a target, or in a circle
		}
		if !errors.Is(err, fs.ErrNotExist) || d == filepath.Dir(d) {
			return "", err
		}
	}
}

// stagings returns the two paths at which the staging folder of dir can be: beside
// dir, or inside it. A staging folder may hold a journal.
func stagings(dir string) [2]string {
	return [2]string{
		filepath.Join(filepath.Dir(dir), "."+filepath.Base(dir)+stagingName),
		filepath.Join(dir, stagingName),
	}
}

// staging is the staging folder of f.
func (f *folder) staging() string {
	if f.inside {
		return stagings(f.dir)[1]
	}
	return stagings(f.dir)[0]
}

// tree is where the new contents are built.
func (f *folder) tree() string { return filepath.Join(f.staging(), "new") }

// read reads the contents of the folder as they are now.
func (p place) read() (c contents, err error) {
	st, err := os.Stat(p.dir)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return c, fmt.Errorf("look at %s: %w", p.dir, err)
	}
	if !st.IsDir() {
		return c, fmt.Errorf("%s is not a directory", p.dir)
	}
	c.exists = true
	if sys, ok := st.Sys().(*syscall.Stat_t); ok {
		c.owner = &Owner{int(sys.Uid), int(sys.Gid)}
	}
	entries, err := os.ReadDir(p.dir)
	if err != nil {
		return c, fmt.Errorf("data-dir %q not empty or could not be read: %w", p.dir, err)
	}
	c.bare = len(entries) == 0
	for _, e := range entries {
		if name := e.Name(); name != p.stays && !isOurs(name) {
			c.old = append(c.old, name)
		}
	}
	return c, nil
}

// isOurs reports whether a restore or the file system has made the entry of that
// name. Such an entry is not in the way.
func isOurs(name string) bool {
	return name == "lost+found" || strings.HasPrefix(name, stagingName) || strings.HasPrefix(name, AsidePrefix)
}

// changed reports whether the folder has changed since it was found.
func (f *folder) changed() (bool, error) {
	now, err := f.read()
	if err != nil {
		return true, err
	}
	for _, name := range now.old {
		if !slices.Contains(f.old, name) {
			return true, nil
		}
	}
	// If the folder cannot be replaced, our staging folder is inside it, so an
	// empty folder is no longer empty.
	return now.exists != f.exists || !f.inside && now.bare != f.bare, nil
}

func (f *folder) describe() string {
	switch {
	case len(f.old) > 0:
		return ", the data there is moved aside"
	case f.inside:
		return ", stays in place: contents are moved in"
	case f.exists:
		return ", empty now"
	}
	return ""
}

// root returns the folder whose file system must hold everything.
func (f *folder) root() string {
	if f.inside {
		return f.dir
	}
	return disk.Existing(filepath.Dir(f.dir))
}

func within(inner, outer string) bool {
	rel, err := filepath.Rel(outer, inner)
	return err == nil && rel != ".." && !strings.HasPrefix(rel, ".."+string(filepath.Separator))
}
