package inuse

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/kballard/go-shellquote"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// ForeignError is a folder that would be moved, with more in it than etcd puts there: most
// likely it is not the folder that was meant.
type ForeignError struct {
	dir   string
	names []string
	none  bool   // nothing in it is etcd's
	sure  bool   // what is etcd's in it can be of nothing else
	heart string // the folder by which one of this kind is known; a WAL directory has none
}

// ForeignData returns an error if an entry of a data directory is not of a member of etcd.
// wal is the WAL directory, if that is an entry, too.
func ForeignData(dir string, entries []string, wal string) *ForeignError {
	e := foreign(dir, entries, "member", func(name string) bool {
		switch name {
		case "member":
			st, err := os.Stat(filepath.Join(dir, name))
			return err == nil && st.IsDir()
		case "proxy", "fixtures", ".touch": // of a v2 proxy, of --auto-tls, of a test whether it can be written
			return true
		}
		// etcd makes a WAL beside its place, and moves a broken one there.
		return wal != "" && (name == wal || name == wal+".tmp" || strings.HasPrefix(name, wal+".broken."))
	})
	if e != nil {
		_, snap := os.Stat(filepath.Join(dir, "member", "snap"))
		_, log := os.Stat(filepath.Join(dir, "member", "wal"))
		e.sure = snap == nil || log == nil
	}
	return e
}

// ForeignWAL is [ForeignData] for a WAL directory.
func ForeignWAL(dir string, entries []string) *ForeignError {
	e := foreign(dir, entries, "", func(name string) bool {
		return name == ".touch" || slices.Contains([]string{".wal", ".tmp", ".broken"}, filepath.Ext(name))
	})
	if e != nil {
		e.sure = slices.ContainsFunc(entries, func(name string) bool { return filepath.Ext(name) == ".wal" })
	}
	return e
}

// Few reports whether the entries can be moved with the data of etcd, and be named: it is
// surely the folder of a server, and there is little in it that is not the server's, and no
// data of another one.
func (e *ForeignError) Few() bool {
	return e.sure && len(e.names) <= shown && !slices.ContainsFunc(e.names, func(name string) bool {
		_, err := os.Lstat(filepath.Join(e.dir, name, "member"))
		return err == nil
	})
}

// Names are the entries.
func (e *ForeignError) Names() []string { return e.names }

func foreign(dir string, entries []string, heart string, own func(name string) bool) *ForeignError {
	e := &ForeignError{dir: dir, none: true, heart: heart}
	for _, name := range entries {
		if own(name) {
			e.none = false
		} else {
			e.names = append(e.names, name)
		}
	}
	if len(e.names) == 0 {
		return nil
	}
	return e
}

// shown is how many entries a refusal names.
const shown = 5

// List names the entries.
func (e *ForeignError) List() string {
	list := strings.Join(e.names[:min(shown, len(e.names))], ", ")
	if more := len(e.names) - shown; more > 0 {
		list += fmt.Sprintf(" and %d more", more)
	}
	return list
}

// Refusal is the error in full, with the way out.
func (e *ForeignError) Refusal() error {
	if e.none { // a command that moves the folders of a system must not stand here
		return backup.WithHint(&backup.RefusedError{Reason: fmt.Sprintf(
			"%s would be moved, and it is no directory of etcd: it has %s", e.dir, e.List())},
			"give the directory of etcd itself%s, or a new one; if this is the one, move away yourself what is in it",
			e.meant())
	}
	words := []string{"mv", "--"}
	for _, name := range e.names[:min(shown, len(e.names))] {
		words = append(words, filepath.Join(e.dir, name))
	}
	command := shellquote.Join(words...)
	if len(e.names) > shown {
		command += " ..."
	}
	return backup.WithHint(&backup.RefusedError{Reason: fmt.Sprintf(
		"%s would be moved, and it has more than etcd puts there: %s", e.dir, e.List())},
		"move that away yourself, and run this again: %s /ELSEWHERE/", command)
}

// meant names a directory of that kind in the folder.
func (e *ForeignError) meant() string {
	if e.heart == "" {
		return ""
	}
	for _, name := range e.names {
		dir := filepath.Join(e.dir, name)
		if st, err := os.Stat(filepath.Join(dir, e.heart)); err == nil && st.IsDir() {
			return ", such as " + dir
		}
	}
	return ""
}
