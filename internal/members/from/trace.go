package from

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/companion"
)

// Trace reads files as [Read] does, and returns all files of this host that it read, and the
// files and folders that it looked for where nothing is, or nothing of interest. With these a
// [Source] elsewhere gives the same answers. Files that etcd reads itself, such as its keys, are
// among them, or are missing with the line that names them. The error is that of [Read].
func Trace(files []string) (companion.Traced, error) {
	t := companion.Traced{Missing: map[string]error{}}
	hostname, err := os.Hostname()
	if err != nil {
		return t, err
	}
	looked := []string{}
	source := &Source{Hostname: hostname}
	source.ReadFile = func(name string) ([]byte, error) {
		raw, err := readFile(name)
		info, serr := os.Stat(name)
		folder := serr == nil && info.IsDir() // where a copied unit has its own file at another place
		if serr == nil && info.Mode().IsRegular() && isProgram(name) {
			return raw, err // it was read to see whether it is a script: a package has it, and a restore is told so, too
		}
		if folder || errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ENOTDIR) {
			looked = append(looked, path.Clean(name))
		} else {
			t.Read = append(t.Read, path.Clean(name)) // what cannot be read is missing
		}
		return raw, err
	}
	source.ReadDir = func(name string) ([]fs.DirEntry, error) {
		looked = append(looked, path.Clean(name))
		return os.ReadDir(name)
	}
	found, err := Read(files, Options{Source: source})
	if errors.As(err, new(*backup.RefusedError)) { // it is of several members: a restore is told which
		found, err = Read(files, Options{All: true, Source: source})
	}
	for _, name := range looked {
		if !slices.ContainsFunc(t.Read, func(r string) bool { return r == name || strings.HasPrefix(r, name+"/") }) {
			t.Absent = append(t.Absent, name)
		}
	}
	if err == nil {
		addNamed(&t, found)
	}
	return t, err
}

// isProgram reports whether a file is a program for Linux, in ELF.
func isProgram(name string) bool {
	f, err := os.Open(name)
	if err != nil {
		return false
	}
	defer f.Close() // only read from
	magic := make([]byte, 4)
	_, err = io.ReadFull(f, magic)
	return err == nil && string(magic) == "\x7fELF"
}
