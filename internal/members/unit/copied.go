package unit

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/disk"
	"github.com/etcd-backupd/backupd/internal/members"
)

// userFolders are those of systemd for units of users.
var userFolders = []string{
	"/etc/systemd/user", "/run/systemd/user", "/usr/local/lib/systemd/user", "/usr/lib/systemd/user",
	"/root/.config/systemd/user", "/root/.local/share/systemd/user",
	"/home/*/.config/systemd/user", "/home/*/.local/share/systemd/user",
}

// copied is a unit that lies outside of systemd's folders: it may be of another host, and the files
// of this host that have the names it gives are not known to be its own.
type copied struct {
	dir  string // of the unit
	at   members.Position
	root string // what is / on its host, if all of that was copied; else dir
	read func(path string) ([]byte, error)
	// refused is why a script was not read, of which nobody knows whether it starts etcd.
	refused error
}

// copyOf returns nil for a unit that is installed on this host.
func copyOf(id identity, o members.ReadOptions) *copied {
	dir := filepath.Dir(id.path)
	installed := slices.Contains(folders, dir) || len(id.lookup) > 1 ||
		slices.ContainsFunc(userFolders, func(f string) bool { ok, _ := filepath.Match(f, dir); return ok })
	if !o.Copies || installed {
		return nil
	}
	c := &copied{dir: dir, at: members.Position{File: id.path}, root: dir, read: o.ReadFile}
	for _, f := range folders {
		if root, ok := strings.CutSuffix(dir, f); ok && len(root) < len(c.root) { // not DIR/usr of DIR/usr/lib
			c.root = root
		}
	}
	return c
}

// find returns the file that a path names on the host of the copy: one in the same tree, or
// beside the unit. It is fs.ErrNotExist if there is none here, and a [*members.FileError] if the
// only one is that of this host.
func (c *copied) find(name string, at members.Position) (string, []byte, error) {
	if c.holds(name) {
		raw, err := c.read(name)
		return name, raw, err
	}
	found, text := "", []byte(nil)
	for _, beside := range c.beside(name) {
		raw, err := c.read(beside)
		switch {
		case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ENOTDIR), errors.Is(err, disk.ErrUnfit):
			continue
		case err != nil:
			return "", nil, at.Errorf("%v", err)
		case found != "" && !bytes.Equal(text, raw):
			return "", nil, at.Errorf("%s may be %s or %s, which differ: keep one of them", name, found, beside)
		case found == "":
			found, text = beside, raw
		}
	}
	if found != "" {
		return found, text, nil
	}
	if _, err := c.read(name); errors.Is(err, fs.ErrNotExist) {
		return "", nil, err
	}
	return "", nil, backup.WithHint(at.Errorf("%s is a file of this host, and nobody knows whether the unit is, too: the "+
		"unit is not in a folder of systemd", name),
		"copy the file of the unit's own host to %s; or, if this is its host, give the unit that is installed here (%s)",
		strings.Join(c.beside(name), " or "), filepath.Join("/etc/systemd/system", filepath.Base(c.at.File)))
}

// holds reports whether a path is in the tree of the unit.
func (c *copied) holds(name string) bool {
	return members.InTree(name, c.root)
}

// beside are the places of a file that was copied together with the unit.
func (c *copied) beside(name string) []string {
	return []string{filepath.Join(c.root, name), filepath.Join(c.dir, filepath.Base(name))}
}

// programs are folders of what packages install, which is the same on each host.
var programs = []string{"/bin", "/sbin", "/lib", "/lib64", "/usr", "/dev", "/proc", "/sys"}

// readFile reads a script, or another file that the unit's commands name. If the file is not there,
// it is like one that a host has not.
func (c *copied) readFile(name string) ([]byte, error) {
	if slices.ContainsFunc(programs, func(dir string) bool { return disk.Within(name, dir) }) {
		return c.read(name)
	}
	_, raw, err := c.find(name, c.at)
	if c.refused == nil && errors.As(err, new(*members.FileError)) {
		c.refused = err
	}
	return raw, err
}

// readOwn reads an environment file of the unit, and says where that is.
func readOwn(u *unit, name string, at members.Position) (string, []byte, error) {
	if u.copied != nil {
		return u.find(name, at)
	}
	raw, err := u.options.ReadFile(name)
	return name, raw, err
}

// ownConfiguration makes --config-file name the file of the host that the unit is of.
func ownConfiguration(u *unit, s *members.Start) error {
	if u.copied == nil || s.Contained {
		return nil
	}
	s.Args = slices.Clone(s.Args)
	for i := range s.Args {
		w := &s.Args[i]
		flag := strings.TrimLeft(w.Text, "-")
		switch value, together := strings.CutPrefix(flag, "config-file="); {
		case flag == w.Text:
		case together:
			if err := replaceFile(u, w, value); err != nil {
				return err
			}
		case flag == "config-file" && i+1 < len(s.Args):
			if err := replaceFile(u, &s.Args[i+1], s.Args[i+1].Text); err != nil {
				return err
			}
		}
	}
	for i := range s.Env {
		if v := &s.Env[i]; v.Name == "ETCD_CONFIG_FILE" {
			if err := replaceFile(u, &v.Value, v.Value.Text); err != nil {
				return err
			}
		}
	}
	return nil
}

// replaceFile replaces a path at the end of a word by the one that is read for it.
func replaceFile(u *unit, w *members.Word, name string) error {
	if !filepath.IsAbs(name) {
		name = filepath.Join(u.Dir.Text, name)
	}
	if !filepath.IsAbs(name) {
		return nil // refused where it is read
	}
	at, _, err := u.find(name, w.At)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil // as above
	case err != nil:
		return err
	case at != name:
		flag, _, together := strings.Cut(w.Text, "=")
		if w.Text = at; together && strings.HasPrefix(flag, "-") {
			w.Text = flag + "=" + at
		}
		u.Notes = append(u.Notes, members.Note{At: w.At, Text: fmt.Sprintf("%s was read as %s", name, at)})
	}
	return nil
}
