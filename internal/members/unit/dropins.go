package unit

import (
	"errors"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/etcd-backupd/backupd/internal/members"
)

// folders are those of systemd for units of the system: of two files of one name the one
// in the folder that is earlier here is in force.
var folders = []string{
	"/etc/systemd/system.control", "/run/systemd/system.control", "/run/systemd/transient",
	"/run/systemd/generator.early", "/etc/systemd/system", "/etc/systemd/system.attached", "/run/systemd/system",
	"/run/systemd/system.attached", "/run/systemd/generator", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system",
	"/lib/systemd/system", "/run/systemd/generator.late",
}

// lookup returns the folders in which systemd looks for a unit that is in dir.
func lookup(dir string) []string {
	if slices.Contains(folders, dir) {
		return folders
	}
	return []string{dir}
}

// sameFolder is true for /lib and /usr/lib, of which one is a link to the other.
func sameFolder(a, b string) bool {
	return strings.TrimPrefix(a, "/usr") == strings.TrimPrefix(b, "/usr")
}

// names returns the names whose folders NAME.d hold additions to a unit, the most
// particular first.
func names(unit string) []string {
	prefix, instance, template := specifiers{name: unit}.parts()
	out := []string{unit}
	at := ""
	if template {
		at = "@" + instance
		if instance != "" {
			out = append(out, prefix+"@.service")
		}
	}
	for p := strings.TrimSuffix(prefix, "-"); ; {
		i := strings.LastIndexByte(p, '-')
		if i <= 0 {
			return out
		}
		out = append(out, p[:i+1]+at+".service")
		if instance != "" {
			out = append(out, p[:i+1]+"@.service")
		}
		p = p[:i]
	}
}

// takeDropIns takes the additions in the order of their names, wherever they are. Of two
// with one name the first found is in force.
func (u *unit) takeDropIns() error {
	found := map[string]string{}
	var order []string
	for _, dir := range dropInFolders(u) {
		entries, err := u.options.ReadDir(dir.path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return members.Position{File: dir.path}.Errorf("read additions to the unit: %v", err)
		}
		for _, e := range entries {
			name := e.Name()
			switch path := filepath.Join(dir.path, name); {
			case !strings.HasSuffix(name, ".conf") || name[0] == '.':
			case found[name] == "":
				found[name] = path
				order = append(order, name)
			case dir.alias:
				return members.Position{File: path}.Errorf("this addition and %s have one name, and which of them systemd "+
					"takes cannot be known: rename one", found[name])
			}
		}
	}
	slices.Sort(order)
	for _, name := range order {
		raw, err := u.options.ReadFile(found[name])
		if err != nil {
			return members.Position{File: found[name]}.Errorf("read an addition to the unit: %v", err)
		}
		if err := u.take(found[name], raw); err != nil {
			return err
		}
	}
	return nil
}

// dropInFolder is one that may hold additions to a unit, under another name of it if alias is set.
type dropInFolder struct {
	path  string
	alias bool
}

func dropInFolders(u *unit) (out []dropInFolder) {
	if u.name == "" {
		return []dropInFolder{{path: u.path + ".d"}}
	}
	for i, unit := range append([]string{u.name}, u.aliases...) {
		for _, dir := range u.lookup {
			for _, name := range names(unit) {
				out = append(out, dropInFolder{filepath.Join(dir, name+".d"), i > 0})
			}
		}
	}
	for _, dir := range u.lookup {
		out = append(out, dropInFolder{path: filepath.Join(dir, "service.d")})
	}
	seen := map[string]bool{}
	return slices.DeleteFunc(out, func(d dropInFolder) bool {
		before := seen[d.path]
		seen[d.path] = true
		return before
	})
}
