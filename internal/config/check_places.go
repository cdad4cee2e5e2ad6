package config

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/etcd-backupd/backupd/internal/config/strict"
	"github.com/etcd-backupd/backupd/internal/location"
)

// checkNames refuses names that differ by case alone: where the file system or a tool
// does not tell them apart, two clusters would have one folder.
func checkNames(d *strict.Decoder, c *Config) {
	var repositories []name
	for _, n := range sortedKeys(c.Repositories) {
		repositories = append(repositories, name{n, "repositories." + n})
	}
	var clusters []name
	for i := range c.Clusters {
		clusters = append(clusters, name{c.Clusters[i].Name, fmt.Sprintf("clusters[%d].name", i)})
	}
	for _, names := range [][]name{repositories, clusters} {
		for i, n := range names {
			if first := alike(n, names[:i]); first != nil && d.Usable(n.path) {
				d.Add(n.path, "%q and %q, in line %d, differ by case alone: some file systems do not tell them apart",
					n.text, first.text, d.Line(first.path))
			}
		}
	}
}

// name is a name in the file, and where it is.
type name struct{ text, path string }

// alike returns the first of others that differs by case alone, or nil.
func alike(n name, others []name) *name {
	for i, o := range others {
		if o.text != n.text && strings.EqualFold(o.text, n.text) {
			return &others[i]
		}
	}
	return nil
}

// trespass is a place inside another that must not be there.
type trespass struct {
	path, other string // of the inner one and of the outer one, in the file
	text        string
}

// trespasses returns the repositories inside another one, and the spool inside a
// repository. real returns the folder that a path leads to.
func trespasses(c *Config, real func(path string) string) []trespass {
	var out []trespass
	all := map[string]string{}
	for _, name := range sortedKeys(c.Repositories) {
		r := c.Repositories[name]
		if at, ok := r.place(real); ok {
			all[name] = at
		}
	}
	for _, inner := range sortedKeys(all) {
		for _, outer := range sortedKeys(all) {
			if all[inner] != all[outer] && within(all[inner], all[outer]) {
				out = append(out, trespass{"repositories." + inner + ".url", "repositories." + outer + ".url",
					"the repository is inside " + outer + ", which would take its objects for its own"})
			}
		}
	}
	folder := c.Daemon.Spool.Folder
	for _, outer := range sortedKeys(all) {
		if folder != "" && within(asPlace(real(folder)), all[outer]) {
			out = append(out, trespass{"daemon.spool.folder", "repositories." + outer + ".url",
				"the spool is inside the repository " + outer + ", where its databases would lie unencrypted"})
		}
	}
	return out
}

// checkPlaces refuses places inside others, as the text of the file says it.
func checkPlaces(d *strict.Decoder, c *Config) {
	for _, t := range trespasses(c, filepath.Clean) {
		if d.Usable(t.path) && d.Usable(t.other) {
			d.Add(t.path, "%s, in line %d", t.text, d.Line(t.other))
		}
	}
}

// place names where the repository is, so that a place inside it begins with it. It
// returns false if that is not known.
func (r *Repository) place(real func(string) string) (string, bool) {
	l, err := location.Parse(r.URL)
	switch {
	case err != nil:
		return "", false
	case l.IsFolder():
		return asPlace(real(l.Path)), true
	}
	prefix := strings.Trim(l.Prefix, "/")
	return "s3://" + strings.Join([]string{r.S3.Endpoint, l.Bucket, prefix}, "/"), true
}

func asPlace(folder string) string { return "file://" + folder }

// within reports whether a place is another, or inside it.
func within(inner, outer string) bool {
	return strings.HasPrefix(strings.TrimSuffix(inner, "/")+"/", strings.TrimSuffix(outer, "/")+"/")
}

// resolved returns the folder that a path leads to. Only what is there of it can be
// followed.
func resolved(path string) string {
	path = filepath.Clean(path)
	if real, err := filepath.EvalSymlinks(path); err == nil {
		return real
	}
	if parent := filepath.Dir(path); parent != path {
		return filepath.Join(resolved(parent), filepath.Base(path))
	}
	return path
}
