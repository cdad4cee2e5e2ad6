package publish

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/disk"
)

// stagingName is part of the name of everything that a running restore makes
// beside or inside its targets.
const stagingName = ".backupd-restore"

// AsidePrefix comes between the name of a target and a time, in the names of
// folders that were moved aside.
const AsidePrefix = ".backupd-old-"

// Place is where a folder goes.
type Place struct {
	// Dir is the folder, as [Resolve] returns it.
	Dir string
	// Heart is the entry of Dir that a server starts from, if there is one.
	Heart string
	// Keep is an entry of Dir that stays there: a mount point.
	Keep string
}

// contents describes a folder as it was found.
type contents struct {
	Exists bool
	Old    []string // names of the entries that are in the way
	bare   bool     // it exists and has no entry at all
}

// Folder is one folder that a restore puts into place.
//
// Usually it is built in a staging folder beside it and renamed. A mount point
// cannot be renamed, so there the staging folder is inside, on the same file
// system, and the contents are moved.
type Folder struct {
	Place
	contents
	Inside bool
	Nested string // a mount point below Dir, which cannot be moved

	undo bool   // see [Folder.Undo]
	tree string // the old data that is put back
}

// Group is the folders of one server. They are put into place together; the first
// one has the heart.
type Group []*Folder

// NewFolder looks at the folder. mounts are all mounts of this process.
func NewFolder(p Place, mounts []disk.Mount) (*Folder, error) {
	found, err := p.look()
	if err != nil {
		return nil, err
	}
	f := &Folder{Place: p, contents: found}
	mounted := false
	for _, m := range mounts {
		kept := p.Keep != "" && disk.Within(m.Point, filepath.Join(p.Dir, p.Keep))
		if m.Point != p.Dir && disk.Within(m.Point, p.Dir) && !kept {
			f.Nested = m.Point
		}
		mounted = mounted || m.Point == p.Dir
	}
	f.Inside = p.Keep != "" || found.Exists && (mounted || unix.Access(filepath.Dir(p.Dir), unix.W_OK) != nil)
	return f, checkName(f)
}

// maxName is how many bytes a file system takes for one name.
const maxName = 255

// checkName returns an error if the name of the folder is so long that there is no room
// for the names that are made beside it. To find out later would wedge the folder.
func checkName(f *Folder) error {
	longest := max(len(filepath.Base(lockPath(f.Staging()))), len(filepath.Base(f.aside(longestStamp))))
	if more := longest - maxName; !f.Inside && more > 0 {
		return backup.WithHint(fmt.Errorf("the name of %s is too long by %d bytes: names of old and of new data "+
			"are made from it", f.Dir, more), "choose a folder with a shorter name")
	}
	return nil
}

// Resolve makes dir absolute and follows all links, also where its last
// elements do not exist yet. A restore replaces the folder behind a link, never
// the link.
func Resolve(dir string) (string, error) {
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

// Targets lists the folders in parent that a restore may have been interrupted on.
func Targets(parent string) ([]string, error) {
	entries, err := os.ReadDir(parent)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for an interrupted restore: %w", err)
	}
	var out []string
	for _, e := range entries {
		// A target may not be there yet, only its staging folder.
		target := e.Name()
		if inner, ok := strings.CutSuffix(target, stagingName); ok {
			target = strings.TrimPrefix(inner, ".")
		}
		// A link without a target is no folder of ours.
		if abs, err := Resolve(filepath.Join(parent, target)); err == nil {
			out = append(out, abs)
		}
	}
	return out, nil
}

// Staging is the staging folder of f. Everything in it but [Folder.Tree] is removed
// at the end.
func (f *Folder) Staging() string {
	if f.Inside {
		return stagings(f.Dir)[1]
	}
	return stagings(f.Dir)[0]
}

// Tree is where the new contents are built, or where the old ones are that are put back.
func (f *Folder) Tree() string {
	if f.undo {
		return f.tree
	}
	return filepath.Join(f.Staging(), "new")
}

// look reads the contents of the folder as they are now.
func (p Place) look() (c contents, err error) {
	st, err := os.Stat(p.Dir)
	if errors.Is(err, fs.ErrNotExist) {
		return c, nil
	}
	if err != nil {
		return c, fmt.Errorf("look at %s: %w", p.Dir, err)
	}
	if !st.IsDir() {
		return c, fmt.Errorf("%s is not a directory", p.Dir)
	}
	c.Exists = true
	entries, err := os.ReadDir(p.Dir)
	if err != nil {
		return c, &UnreadableError{p.Dir, err}
	}
	c.bare = len(entries) == 0
	for _, e := range entries {
		if name := e.Name(); name != p.Keep && !IsOurs(name) {
			c.Old = append(c.Old, name)
		}
	}
	return c, nil
}

// UnreadableError is a folder whose entries cannot be listed.
type UnreadableError struct {
	Dir string
	Err error
}

// Error says which folder it is, and why.
func (e *UnreadableError) Error() string { return fmt.Sprintf("list folder %s: %v", e.Dir, e.Err) }

// Unwrap returns the reason.
func (e *UnreadableError) Unwrap() error { return e.Err }

// IsOurs reports whether a restore or the file system has made the entry of that
// name. Such an entry is not in the way.
func IsOurs(name string) bool {
	return name == "lost+found" || strings.HasPrefix(name, stagingName) || strings.HasPrefix(name, AsidePrefix) ||
		strings.HasPrefix(name, UndonePrefix)
}

// Changed reports whether the folder has changed since it was found.
func (f *Folder) Changed() (bool, error) {
	now, err := f.look()
	if err != nil {
		return true, err
	}
	for _, name := range now.Old {
		if !slices.Contains(f.Old, name) {
			return true, nil
		}
	}
	// If the folder cannot be replaced, our staging folder is inside it, so an
	// empty folder is no longer empty.
	return now.Exists != f.Exists || !f.Inside && now.bare != f.bare, nil
}

// Root is the folder whose file system must hold everything.
func (f *Folder) Root() string {
	if f.Inside {
		return f.Dir
	}
	return disk.Existing(filepath.Dir(f.Dir))
}
