package unit

import (
	"path/filepath"
	"slices"
	"strings"

	"github.com/etcd-backupd/backupd/internal/members"
)

// identity is which unit a file is. Links decide it: systemd names a unit by the link in its own
// folders, and adds what belongs to all its names.
type identity struct {
	path    string // of the file that is in force
	unit    string // empty if the file's name is not that of a unit
	aliases []string
	lookup  []string // the folders that hold it and its additions
	seen    string   // where systemd sees the file: a link to it, or its path
}

// identify finds the unit that a path means.
func identify(path string, o members.ReadOptions) (id identity, err error) {
	dir, name := filepath.Dir(path), filepath.Base(path)
	if dir, err = follow(o, dir); err != nil {
		dir = filepath.Dir(path)
	}
	if !strings.HasSuffix(name, ".service") {
		return identity{path: path, seen: path, lookup: []string{dir}}, nil
	}
	if wanted(dir) {
		dir = filepath.Dir(dir)
		if path, err = inForce(lookup(dir), name, path, o); err != nil {
			return id, err
		}
		dir = filepath.Dir(path)
	}
	final, err := follow(o, path)
	if err != nil {
		return id, members.Position{File: path}.Errorf("%v", err)
	}
	ours, theirs := slices.Contains(folders, dir), slices.Contains(folders, filepath.Dir(final))
	id = identity{path: path, unit: name, seen: path, lookup: lookup(dir)}
	switch {
	case final == "/dev/null":
		return id, members.Position{File: path}.Errorf("the unit is masked: systemd does not start it")
	case ours && theirs: // it is the unit itself, or an alias of it
		id.path, id.seen, id.unit = final, final, instanceOf(filepath.Base(final), name)
		return id, id.findAliases(final, o)
	case ours:
		return id, id.findLinks(final, o)
	case theirs && filepath.Base(final) != name:
		return id, members.Position{File: path}.Errorf("it is a link to %s, which has another name: give that", final)
	case theirs:
		return identify(final, o)
	}
	return id.outside(final, o)
}

func follow(o members.ReadOptions, path string) (string, error) {
	if o.Follow == nil {
		return path, nil
	}
	return o.Follow(path)
}

// wanted is true for the folder of links to what a unit wants.
func wanted(dir string) bool {
	return slices.Contains([]string{".wants", ".requires", ".upholds"}, filepath.Ext(dir))
}

// inForce returns the file of a unit in its folders: one of its own name, else its template.
func inForce(dirs []string, name, link string, o members.ReadOptions) (string, error) {
	for _, n := range []string{name, templateOf(name)} {
		for _, dir := range dirs {
			at := filepath.Join(dir, n)
			if _, err := o.ReadFile(at); err == nil {
				return at, nil
			}
		}
	}
	return "", members.Position{File: link}.Errorf("it is a link of systemd, and the unit is not in %s: give the unit",
		strings.Join(dirs, ", "))
}

// templateOf returns NAME@.service for an instance of it, and else the name itself.
func templateOf(name string) string {
	if prefix, _, ok := strings.Cut(name, "@"); ok {
		return prefix + "@.service"
	}
	return name
}

// instanceOf returns the unit of a template whose instance another name has.
func instanceOf(unit, name string) string {
	prefix, instance, template := specifiers{name: unit}.parts()
	_, wanted, ok := specifiers{name: name}.parts()
	if !template || instance != "" || !ok {
		return unit
	}
	return prefix + "@" + wanted + ".service"
}

// linksTo returns the links of systemd's folders that lead to a file.
func linksTo(final string, o members.ReadOptions) (out []string, err error) {
	if o.Follow == nil {
		return nil, nil
	}
	for _, dir := range folders {
		entries, err := o.ReadDir(dir)
		if err != nil {
			continue // most are not there
		}
		for _, e := range entries {
			link := filepath.Join(dir, e.Name())
			if e.Type().IsRegular() || e.IsDir() || !strings.HasSuffix(e.Name(), ".service") {
				continue
			}
			if to, err := o.Follow(link); err == nil && to == final {
				out = append(out, link)
			}
		}
	}
	return out, nil
}

// findAliases finds the other names of a unit in systemd's folders.
func (id *identity) findAliases(final string, o members.ReadOptions) error {
	links, err := linksTo(final, o)
	for _, l := range links {
		name := instanceOf(filepath.Base(l), id.unit)
		_, instance, template := specifiers{name: name}.parts()
		_, own, _ := specifiers{name: id.unit}.parts()
		if template && instance != own && templateOf(name) == templateOf(id.unit) {
			continue // another instance of the same template
		}
		if name != id.unit && !slices.Contains(id.aliases, name) {
			id.aliases = append(id.aliases, name)
		}
	}
	return err
}

// findLinks looks for other links to a file outside of systemd's folders. Whether they are
// names of one unit, or units, depends on how they lead there.
func (id *identity) findLinks(final string, o members.ReadOptions) error {
	links, err := linksTo(final, o)
	for _, l := range links {
		if filepath.Base(l) != id.unit {
			return members.Position{File: id.path}.Errorf("%s and %s lead to one file: whether the additions of one are those "+
				"of the other, too, cannot be known: have one link only", filepath.Join(filepath.Dir(id.path), id.unit), l)
		}
	}
	return err
}

// outside is a file that is not in systemd's folders: it is a unit of the system if one of these
// has a link to it.
func (id identity) outside(final string, o members.ReadOptions) (identity, error) {
	links, err := linksTo(final, o)
	if err != nil || len(links) == 0 {
		if other := filepath.Join(filepath.Dir(final), filepath.Base(final)+".d"); final != id.path &&
			other != filepath.Join(id.lookup[0], id.unit+".d") {
			if entries, err := o.ReadDir(other); err == nil && len(entries) > 0 {
				return id, members.Position{File: id.path}.Errorf("it is a link to %s, which has additions in %s: give that",
					final, other)
			}
		}
		return id, err
	}
	id.unit, id.lookup, id.seen = filepath.Base(links[0]), folders, links[0]
	return id, id.findLinks(final, o)
}
