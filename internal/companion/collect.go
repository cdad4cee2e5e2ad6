package companion

import (
	"archive/tar"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/secret"
)

const (
	maxMissing = 50 // reasons in a manifest
	// maxNames is how many bytes all paths and targets of links may have: a manifest that
	// lists them stays below its own bound.
	maxNames = 256 << 10
	// maxVisited is how many names in folders are looked at before the folders are taken for
	// other ones than were meant.
	maxVisited = 10 * backup.MaxCompanions
	maxShown   = 200 // bytes of a path that is no line of text
)

// Archive are the companion files of one moment, in memory.
type Archive struct {
	// About is what the manifest says of them. [Archive.Store] completes it.
	About *backup.Companions
	tar   []byte // empty if there is no file
}

// found is a name that was found. Its file is opened below root, which no link leaves.
type found struct {
	path string // as it was asked for
	real string // without links in the way
	root *os.Root
	name string // below root
	info fs.FileInfo
	link string
	// content is that of a file of a Secret, which has no root: it is on no host.
	content []byte
}

type collector struct {
	about   *backup.Companions
	found   []found
	real    map[string]bool // what the archive will hold, without links in the way
	visited int
	names   int   // bytes
	left    int64 // bytes that files may have
	roots   []*os.Root
	calm    calm
}

// Collect reads the files and the Secrets. It always returns an archive: what could not be read is
// listed as missing, because no snapshot is given up for a file.
func (f Files) Collect(ctx context.Context) *Archive {
	c := &collector{
		about: &backup.Companions{Host: f.Host, At: time.Now().UTC(), From: f.From, Files: []backup.CompanionFile{}},
		real:  map[string]bool{},
		left:  backup.MaxCompanionBytes,
		calm:  calm{quiet: quiet, patience: patience, now: time.Now, wait: time.Sleep},
	}
	defer func() {
		for _, r := range c.roots {
			_ = r.Close() // it was read only
		}
	}()
	c.about.Paths = sorted(append(append([]string{}, f.Paths...), c.trace(f)...))
	for _, p := range c.about.Paths {
		if err := c.look(p); err != nil {
			c.miss(p, err)
		}
	}
	c.secrets(ctx, f)
	c.order()
	c.move()
	c.checkLinks()
	archive := c.pack()
	slices.SortFunc(c.about.Missing, func(a, b backup.MissingCompanion) int { return cmp.Compare(a.Path, b.Path) })
	return &Archive{c.about, archive}
}

// order leaves one of each path: what was named itself and is a link elsewhere among the files is
// a file.
func (c *collector) order() {
	slices.SortFunc(c.found, func(a, b found) int {
		return cmp.Or(cmp.Compare(a.path, b.path), cmp.Compare(a.link, b.link))
	})
	c.found = slices.CompactFunc(c.found, func(a, b found) bool { return a.path == b.path })
}

// move stores what would be below a link where it is without links: nobody can have both a link
// and files below it, and whoever unpacks them by hand would write through the link.
func (c *collector) move() {
	links := map[string]bool{}
	for _, f := range c.found {
		links[f.path] = f.link != ""
	}
	c.found = slices.DeleteFunc(c.found, func(f found) bool {
		if !below(links, f.real) {
			return false
		}
		c.miss(f.path, errors.New("it was below a link while the files were read"))
		return true
	})
	for i := range c.found {
		if f := &c.found[i]; below(links, f.path) {
			f.path = f.real
		}
	}
	c.order()
}

// below reports whether a folder above the path is one of these links.
func below(links map[string]bool, p string) bool {
	for dir := path.Dir(p); dir != "/"; dir = path.Dir(dir) {
		if links[dir] {
			return true
		}
	}
	return false
}

// trace returns the files that those of From refer to, and notes what is not there.
func (c *collector) trace(f Files) []string {
	if len(f.From) == 0 {
		return nil
	}
	traced, err := f.Trace(f.From)
	if err != nil {
		c.miss(f.From[0], errors.New("a restore would refuse it: "+unquoted(err)))
	}
	for p, err := range traced.Missing {
		c.miss(p, err)
	}
	for _, p := range traced.Absent {
		if c.names += inManifest(p); c.names <= maxNames/2 && backup.CheckCompanionPath(p) == nil {
			c.about.Absent = append(c.about.Absent, p)
		}
	}
	c.about.Absent = sorted(c.about.Absent)
	return append(traced.Read, f.From...)
}

// quotation is what an error repeats of a file.
var quotation = regexp.MustCompile(`"(?:[^"\\]|\\.)*"|` + "`[^`]*`" + `|\$\([^)]*\)|\B'[^']*'`)

// unquoted is an error without what stands in the files: they may hold passwords, and the manifest,
// the log and the events are not encrypted.
func unquoted(err error) string {
	return secret.ShowText(quotation.ReplaceAllString(err.Error(), "..."))
}

func sorted(list []string) []string {
	slices.Sort(list)
	return slices.Compact(list)
}

// miss lists what is not stored. The system repeats the path in its errors.
func (c *collector) miss(p string, err error) {
	if of, ok := err.(*fs.PathError); ok {
		err = of.Err
	}
	if quoted := strconv.Quote(p); quoted != `"`+p+`"` || len(p) > backup.MaxCompanionPath {
		p = strconv.QuoteToASCII(p[:min(len(p), maxShown)])
	}
	switch {
	case slices.ContainsFunc(c.about.Missing, func(m backup.MissingCompanion) bool { return m.Path == p }):
	case len(c.about.Missing) < maxMissing:
		c.about.Missing = append(c.about.Missing, backup.MissingCompanion{Path: p, Reason: backup.ReasonOf(err)})
	case len(c.about.Missing) == maxMissing:
		c.about.Missing = append(c.about.Missing, backup.MissingCompanion{Path: p, Reason: "and more after this one"})
	}
}

// look finds the files at a path that was asked for. A link that is named itself is followed,
// for whoever named it wants what it leads to.
func (c *collector) look(p string) error {
	if err := checkPath(p); err != nil {
		return err
	}
	real, err := filepath.EvalSymlinks(p)
	if err != nil {
		return err
	}
	info, err := os.Stat(real)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		root, err := c.open(filepath.Dir(real))
		if err != nil {
			return err
		}
		return c.add(found{path: p, real: real, root: root, name: filepath.Base(real), info: info})
	}
	root, err := c.open(real)
	if err != nil {
		return err
	}
	before := len(c.found) + len(c.about.Missing)
	if err := c.walk(p, real, root); err != nil {
		return err
	}
	if len(c.found)+len(c.about.Missing) == before {
		return errors.New("the folder holds no file")
	}
	return nil
}

func (c *collector) open(dir string) (*os.Root, error) {
	root, err := os.OpenRoot(dir)
	if err == nil {
		c.roots = append(c.roots, root)
	}
	return root, err
}

// errTooMany ends a walk.
var errTooMany = fmt.Errorf("there are more than %d files, or more names than a manifest can list: "+
	"name the folders that a restore needs", backup.MaxCompanions)

func (c *collector) walk(p, real string, root *os.Root) error {
	return fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		at := path.Join(p, name)
		if c.visited++; c.visited > maxVisited {
			return errTooMany
		}
		var info fs.FileInfo
		if err == nil {
			info, err = d.Info()
		}
		if err == nil && d.IsDir() {
			c.real[filepath.Join(real, name)] = true
			return nil
		}
		if err == nil {
			err = c.add(found{path: at, real: filepath.Join(real, name), root: root, name: name, info: info})
		}
		if err != nil && !errors.Is(err, errTooMany) {
			c.miss(at, err)
			return nil
		}
		return err
	})
}

func (c *collector) add(f found) (err error) {
	if cmp.Or(backup.CheckCompanionPath(f.path), backup.CheckCompanionPath(f.real)) != nil {
		return errors.New("its name is no line of text")
	}
	if err := cmp.Or(checkPath(f.path), checkPath(f.real)); err != nil {
		return err // a link has led there
	}
	switch mode := f.info.Mode(); {
	case mode&fs.ModeSymlink != 0:
		f.link, err = f.root.Readlink(f.name)
		if err = cmp.Or(err, backup.CheckCompanionLink(f.link)); err != nil {
			return err
		}
	case !mode.IsRegular():
		return errors.New("it is neither a file nor a folder")
	default:
		c.real[f.real] = true
	}
	c.names += max(inManifest(f.path), inManifest(f.real)) + inManifest(f.link)
	if c.names > maxNames || len(c.found) >= backup.MaxCompanions {
		return errTooMany
	}
	c.found = append(c.found, f)
	return nil
}

// inManifest is the length of a text in a manifest.
func inManifest(text string) int {
	raw, _ := json.Marshal(text) // a text has no error
	return len(raw)
}

// checkLinks reports links to something that the archive does not hold: without it, a restored
// link leads nowhere.
func (c *collector) checkLinks() {
	for _, f := range c.found {
		if f.link == "" {
			continue
		}
		leads := f.link
		if !filepath.IsAbs(leads) {
			leads = filepath.Join(f.root.Name(), filepath.Dir(f.name), leads)
		}
		real, err := filepath.EvalSymlinks(leads)
		switch {
		case err != nil:
			c.miss(f.path, fmt.Errorf("it is a link to %s, which cannot be followed: %w", f.link, err))
		case !c.real[real]:
			c.miss(f.path, fmt.Errorf("it is a link to %s, which is not among the companions: name the link's target, too: %s",
				f.link, real))
		}
	}
}

// pack writes the archive, and lists what is in it.
func (c *collector) pack() []byte {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, f := range c.found {
		file, header, raw, err := f.read(c.left, &c.calm)
		if err == nil {
			err = errors.Join(w.WriteHeader(header), write(w, raw))
		}
		if err != nil {
			c.miss(f.path, err)
			continue
		}
		if f.root != nil { // those of Secrets are counted already
			c.left -= file.Bytes
		}
		c.about.Files = append(c.about.Files, file)
	}
	_ = w.Close() // it writes to memory
	if len(c.about.Files) == 0 {
		return nil
	}
	c.about.Plain = backup.BlobOf(out.Bytes())
	return out.Bytes()
}

func write(w io.Writer, raw []byte) error {
	_, err := w.Write(raw)
	return err
}

// headerOf describes a file in the archive. The owner is for those who unpack it by hand.
func headerOf(f backup.CompanionFile, info fs.FileInfo) *tar.Header {
	h := &tar.Header{
		Typeflag: tar.TypeReg, Name: nameOf(f.Path), Size: f.Bytes, ModTime: info.ModTime().Truncate(time.Second),
		Format: tar.FormatPAX, Mode: int64(info.Mode().Perm()),
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok {
		h.Uid, h.Gid = int(stat.Uid), int(stat.Gid)
	}
	if f.Link != "" {
		h.Typeflag, h.Linkname, h.Mode = tar.TypeSymlink, f.Link, 0o777
	}
	return h
}

// nameOf is the name of a file in the archive.
func nameOf(p string) string { return strings.TrimPrefix(p, "/") }
