package companion

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// UnknownError says that a snapshot does not tell whether there was such a file.
type UnknownError struct{ Path, Host string }

func (e *UnknownError) Error() string {
	return fmt.Sprintf("the companion files do not hold %s, nor do they say that host %s had no such file", e.Path, e.Host)
}

// AbsentError says that a host had no such file when its files were read. It is [fs.ErrNotExist].
type AbsentError struct {
	Path, Host string
	At         time.Time
}

func (e *AbsentError) Error() string {
	return fmt.Sprintf("%s was not there on host %s at %s", e.Path, e.Host, e.At.Format(time.RFC3339))
}

// Unwrap makes it the error of a file system.
func (e *AbsentError) Unwrap() error { return fs.ErrNotExist }

// ReadFile returns a file as it was on its host. The error is [fs.ErrNotExist] only if it is
// known that there was none (an [*AbsentError]), and an [*UnknownError] if it is not known. Secrets of
// Kubernetes were files of no host, even if a path or a link on it led to where they are stored.
func (c *Content) ReadFile(name string) ([]byte, error) {
	name = c.follow(name)
	for i, f := range c.About.Files {
		if f.Path == name && f.Link == "" && !backup.Reserved(name) {
			return c.raw[i], nil
		}
	}
	return nil, c.lacks(name)
}

// ReadDir is [Content.ReadFile] for a folder: it has the files that are stored of it.
func (c *Content) ReadDir(name string) ([]fs.DirEntry, error) {
	name = c.follow(path.Clean(name))
	var out []fs.DirEntry
	for _, f := range c.About.Files {
		rest, below := strings.CutPrefix(f.Path, strings.TrimSuffix(name, "/")+"/")
		if !below || backup.Reserved(f.Path) {
			continue
		}
		first, _, deeper := strings.Cut(rest, "/")
		if len(out) == 0 || out[len(out)-1].Name() != first {
			out = append(out, entry{first, deeper})
		}
	}
	if len(out) > 0 {
		return out, nil
	}
	return nil, c.lacks(name)
}

// Here compares the files with those of this host at the same paths, which may not be there.
func (c *Content) Here() (absent, differ []string) {
	for i, f := range c.About.Files {
		if f.Link != "" || backup.Reserved(f.Path) {
			continue
		}
		info, err := os.Stat(f.Path)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
			absent = append(absent, f.Path)
			continue
		}
		var raw []byte
		if err == nil && info.Mode().IsRegular() && info.Size() == f.Bytes {
			raw, err = os.ReadFile(f.Path)
		}
		if err != nil || info.Size() != f.Bytes || !bytes.Equal(raw, c.raw[i]) {
			differ = append(differ, f.Path)
		}
	}
	return absent, differ
}

// Come returns the files that are on this host and were known not to be there on that of the files:
// what starts etcd would read them.
func (c *Content) Come() (files []string) {
	for _, p := range c.About.Absent {
		if info, err := os.Stat(p); err == nil && info.Mode().IsRegular() {
			files = append(files, p)
		}
	}
	return files
}

// maxLinks is how many links lead to one file, as on Linux.
const maxLinks = 40

// follow returns where a file is stored that was named by a path with links in it.
func (c *Content) follow(name string) string {
	for range maxLinks {
		i := slices.IndexFunc(c.About.Files, func(f backup.CompanionFile) bool {
			return f.Link != "" && (name == f.Path || strings.HasPrefix(name, f.Path+"/"))
		})
		if i < 0 {
			break
		}
		f, leads := c.About.Files[i], c.About.Files[i].Link
		if !path.IsAbs(leads) {
			leads = path.Join(path.Dir(f.Path), leads)
		}
		name = path.Join(leads, strings.TrimPrefix(name, f.Path))
	}
	return name
}

func (c *Content) lacks(name string) error {
	if slices.Contains(c.About.Absent, path.Clean(name)) {
		return &AbsentError{name, c.About.Host, c.About.At}
	}
	return &UnknownError{name, c.About.Host}
}

// entry is a name in a folder.
type entry struct {
	name string
	dir  bool
}

func (e entry) Name() string { return e.name }
func (e entry) IsDir() bool  { return e.dir }

// Type implements [fs.DirEntry].
func (e entry) Type() fs.FileMode {
	if e.dir {
		return fs.ModeDir
	}
	return 0
}

// Info implements [fs.DirEntry]. Nobody asks for it.
func (e entry) Info() (fs.FileInfo, error) { return nil, fs.ErrNotExist }
