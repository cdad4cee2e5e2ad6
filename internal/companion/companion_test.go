package companion_test

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/codec"
	"github.com/etcd-backupd/backupd/internal/companion"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/storage/storagetest/mem"
)

// tree is a folder of files, with links among them.
func tree(t *testing.T) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	put(t, dir+"/pki/ca.key", "KEY", 0o600)
	put(t, dir+"/pki/ca.crt", "CERT", 0o644)
	put(t, dir+"/pki/etcd/peer.key", "PEER", 0o400)
	put(t, dir+"/etcd.conf", "ETCD_NAME=m1\n", 0o640)
	link(t, "etcd/peer.key", dir+"/pki/current")
	return dir
}

func put(t *testing.T, path, text string, mode fs.FileMode) {
	t.Helper()
	err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), 0o600),
		os.Chmod(path, mode))
	if err != nil {
		t.Fatal(err)
	}
}

func link(t *testing.T, target, path string) {
	t.Helper()
	if err := os.Symlink(target, path); err != nil {
		t.Fatal(err)
	}
}

func list(c *backup.Companions, dir string) []string {
	out := []string{}
	for _, f := range c.Files {
		out = append(out, strings.TrimPrefix(f.Path, dir)+" "+f.Mode+f.Link)
	}
	return out
}

func missing(c *backup.Companions, dir string) string {
	var out []string
	for _, m := range c.Missing {
		out = append(out, strings.TrimPrefix(m.Path, dir)+": "+strings.ReplaceAll(m.Reason, dir, ""))
	}
	return strings.Join(out, "\n")
}

// TestCollect: files and links in the order of their paths, each once, whatever was named.
func TestCollect(t *testing.T) {
	dir := tree(t)
	paths := []string{dir + "/pki", dir + "/etcd.conf", dir + "/pki/etcd"}
	c := companion.Files{Paths: paths, Host: "h1"}.Collect(t.Context()).About
	want := []string{
		"/etcd.conf 0640", "/pki/ca.crt 0644", "/pki/ca.key 0600", "/pki/current etcd/peer.key", "/pki/etcd/peer.key 0400",
	}
	if got := list(c, dir); !slices.Equal(got, want) || len(c.Missing) > 0 || c.Host != "h1" {
		t.Errorf("got %q, missing %v", got, c.Missing)
	}
	if f := c.Files[2]; f.Bytes != 3 || f.SHA256 != sha256.Sum256([]byte("KEY")) {
		t.Errorf("the key is listed as %+v", f)
	}
	// A link that is named itself is followed: whoever names it wants the file.
	c = companion.Files{Paths: []string{dir + "/pki/current"}}.Collect(t.Context()).About
	if got := list(c, dir); !slices.Equal(got, []string{"/pki/current 0400"}) || len(c.Missing) > 0 {
		t.Errorf("a named link: %q, missing %v", got, c.Missing)
	}
}

// TestCollect_BelowLink: what is named below a link, or is the link to a folder, is stored where it
// is without links, beside the link; it is found by both names, and what was stored can be extracted.
func TestCollect_BelowLink(t *testing.T) {
	dir := tree(t)
	put(t, dir+"/opt/v2/peer.key", "V2", 0o600)
	put(t, dir+"/opt/v2/more/x", "X", 0o600)
	link(t, "more/x", dir+"/opt/v2/y")
	link(t, dir+"/opt/v2", dir+"/pki/now")
	for _, also := range [][]string{{"/pki/now"}, {"/pki/now/peer.key", "/pki/now/more", "/pki/now/y"},
		{"/pki/now", "/opt/v2"}, {"/opt", "/pki/now/more"}} {
		paths := []string{dir + "/pki"}
		for _, p := range also {
			paths = append(paths, dir+p)
		}
		archive := companion.Files{Paths: paths}.Collect(t.Context())
		got := list(archive.About, dir)
		for _, want := range []string{"/opt/v2/more/x 0600", "/opt/v2/peer.key 0600", "/pki/now " + dir + "/opt/v2"} {
			if !slices.Contains(got, want) {
				t.Errorf("%s: got %q, want %s", also, got, want)
			}
		}
		s := mem.New()
		m := stored(t, s, archive, codec.Options{})
		c, err := companion.Read(t.Context(), data(s), m, nil)
		if err != nil {
			t.Fatal(err)
		}
		if raw, err := c.ReadFile(dir + "/pki/now/peer.key"); err != nil || string(raw) != "V2" {
			t.Errorf("%s: through the link: %q, %v", also, raw, err)
		}
		if in, err := c.ReadDir(dir + "/pki/now/"); err != nil || len(in) < 2 {
			t.Errorf("%s: through the link: %v, %v", also, in, err)
		}
		if err := c.Extract(t.TempDir()); err != nil {
			t.Error(also, err)
		}
	}
	// A loop of links ends.
	link(t, "loop", dir+"/pki/loop")
	s := mem.New()
	c, err := companion.Read(t.Context(), data(s),
		stored(t, s, companion.Files{Paths: []string{dir + "/pki"}}.Collect(t.Context()), codec.Options{}), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.ReadFile(dir + "/pki/loop"); !errors.As(err, new(*companion.UnknownError)) {
		t.Error(err)
	}
}

// TestCollect_Missing: what cannot be stored is named with the reason, and the rest is stored.
func TestCollect_Missing(t *testing.T) {
	dir := tree(t)
	put(t, dir+"/outside", "SECRET OF ANOTHER", 0o600)
	link(t, "../outside", dir+"/pki/out")
	link(t, dir+"/nowhere", dir+"/pki/dangling")
	put(t, dir+"/pki/bad\nname", "x", 0o600)
	l, err := net.Listen("unix", dir+"/pki/socket")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := os.Mkdir(dir+"/empty", 0o700); err != nil {
		t.Fatal(err)
	}
	paths := []string{dir + "/pki", dir + "/gone", dir + "/empty", "relative"}
	archive := companion.Files{Paths: paths}.Collect(t.Context())
	got := missing(archive.About, dir)
	for _, want := range []string{
		"/gone: no such file or directory", "/empty: the folder holds no file",
		"/pki/out: it is a link to ../outside, which is not among the companions: name the link's target, too: /outside",
		"/pki/dangling: it is a link to /nowhere, which cannot be followed: ",
		"/pki/socket: it is neither a file nor a folder", `bad\nname": its name is no line of text`,
		`relative: "relative": want an absolute path`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("missing are\n%s\nwithout %q", got, want)
		}
	}
	if len(archive.About.Missing) != 7 || len(archive.About.Files) != 6 {
		t.Errorf("%d missing, files %q", len(archive.About.Missing), list(archive.About, dir))
	}
	if m := stored(t, mem.New(), archive, codec.Options{}); !errors.Is(m.Validate(), nil) {
		t.Error(m.Validate())
	}
}

// TestCollect_Secrets: why a file that starts etcd would be refused is said with its line, and without
// what stands there: the manifest is not encrypted.
func TestCollect_Secrets(t *testing.T) {
	dir := tree(t)
	for _, problem := range []string{
		`"curl -u root:SECRET http://x" is not understood`, "etcd's line `eval \"$(vault login SECRET)\"` is not understood",
		`what $(curl -u root:SECRET) gives is not understood`, `'PW=SECRET' is not understood`,
		`"an \"escaped\" SECRET" is not understood`, `a URL, https://u:SECRET@x/y, is not understood`,
	} {
		trace := func([]string) (companion.Traced, error) {
			return companion.Traced{}, fmt.Errorf("%s/etcd.conf:7: %s", dir, problem)
		}
		c := companion.Files{From: []string{dir + "/etcd.conf"}, Trace: trace}.Collect(t.Context()).About
		got := missing(c, dir)
		if strings.Contains(got, "SECRET") || !strings.Contains(got, "would refuse it: /etcd.conf:7: ") ||
			!strings.HasSuffix(got, "is not understood") {
			t.Errorf("%s: %s", problem, got)
		}
	}
}

// TestCollect_Bounds: more than a manifest can list, or than a snapshot may hold, is missing; the
// manifest stays valid.
func TestCollect_Bounds(t *testing.T) {
	dir := tree(t)
	for i := range backup.MaxCompanions {
		put(t, fmt.Sprintf("%s/many/%04d", dir, i), "", 0o600)
	}
	big, err := os.Create(dir + "/big")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(big.Truncate(backup.MaxCompanionBytes), big.Close()); err != nil {
		t.Fatal(err)
	}
	c := companion.Files{Paths: []string{dir + "/etcd.conf", dir + "/many"}}.Collect(t.Context()).About
	got := missing(c, dir)
	if len(c.Files) != backup.MaxCompanions || !strings.HasPrefix(got, "/many: there are more than 1000") {
		t.Errorf("%d files, missing %s", len(c.Files), got)
	}
	archive := companion.Files{Paths: []string{dir + "/pki/ca.key", dir + "/big", dir + "/etcd.conf"}}.Collect(t.Context())
	if got := missing(archive.About, dir); got != "/etcd.conf: with it the companions would have more than 64 MiB\n"+
		"/pki/ca.key: with it the companions would have more than 64 MiB" {
		t.Errorf("missing %s", got)
	}
	s := mem.New()
	m := stored(t, s, archive, codec.Options{Compress: codec.Zstd})
	if _, err := companion.Read(t.Context(), data(s), m, nil); err != nil {
		t.Errorf("the largest archive: %v", err)
	}
}

func data(s *mem.Store) repository.Data {
	return repository.At(s, "the-only-repository").Cluster("prod").Data()
}

// stored stores an archive as that of a snapshot, and returns its manifest.
func stored(t *testing.T, s *mem.Store, a *companion.Archive, o codec.Options) *backup.Manifest {
	t.Helper()
	at := time.Date(2026, 11, 20, 10, 15, 0, 0, time.UTC)
	blob := backup.Blob{Bytes: 10, SHA256: backup.Digest{1}}
	m := &backup.Manifest{
		Format: backup.ManifestFormat, Repository: "the-only-repository", Timeline: "t1-aaaaaa",
		ID: backup.NewDataName(at).WithRevision(5), FinishedAt: at, Stored: blob, Encoding: o.Encoding(), Companions: a.About,
		Capture: backup.Capture{
			Cluster: "prod", StartedAt: at, Members: []backup.Member{{ID: 1}}, Revision: 5, Plain: blob,
		},
	}
	if o.Compress != codec.None {
		m.Table = &blob
	}
	if err := a.Store(t.Context(), data(s), m.FilesKey(), o); err != nil {
		t.Fatal(err)
	}
	raw, err := m.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	if m, err = backup.ParseManifest(raw); err != nil {
		t.Fatal(err)
	}
	return m
}

// TestExtract: what was collected comes back, with its permissions, in a new folder or in an
// empty one, and nowhere else; through both encodings.
func TestExtract(t *testing.T) {
	dir, s := tree(t), mem.New()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	to, err := codec.ParseRecipients([]string{id.Recipient().String()}, nil)
	if err != nil {
		t.Fatal(err)
	}
	o := codec.Options{Compress: codec.Zstd, Recipients: to}
	m := stored(t, s, companion.Files{Paths: []string{dir + "/pki", dir + "/etcd.conf"}}.Collect(t.Context()), o)
	if _, err := companion.Read(t.Context(), data(s), m, nil); !errors.Is(err, codec.ErrNoIdentity) {
		t.Errorf("without the key: %v", err)
	}
	c, err := companion.Read(t.Context(), data(s), m, codec.Identities{id})
	if err != nil {
		t.Fatal(err)
	}
	out := t.TempDir() + "/new"
	if err := c.Extract(out); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"/pki/ca.key": "KEY", "/pki/current": "PEER", "/etcd.conf": "ETCD_NAME=m1\n",
	} {
		if got, err := os.ReadFile(out + dir + path); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", path, got, err)
		}
	}
	for path, want := range map[string]fs.FileMode{
		"": 0o700, dir: 0o700, dir + "/pki/etcd/peer.key": 0o400, dir + "/etcd.conf": 0o640,
	} {
		if info, err := os.Stat(out + path); err != nil || info.Mode().Perm() != want {
			t.Errorf("%s: %v, %v", path, info.Mode(), err)
		}
	}
	var refused *backup.RefusedError
	if err := c.Extract(out); !errors.As(err, &refused) {
		t.Errorf("a second time: %v", err)
	}
	if err := c.Extract(t.TempDir()); err != nil {
		t.Errorf("an empty folder: %v", err)
	}
}

// TestRead_Damage: any changed, missing or added byte of the object is found, and nothing is
// returned.
func TestRead_Damage(t *testing.T) {
	dir := tree(t)
	for _, o := range []codec.Options{{}, {Compress: codec.Zstd}} {
		archive := companion.Files{Paths: []string{dir + "/pki"}}.Collect(t.Context())
		good := mem.New()
		m := stored(t, good, archive, o)
		raw := read(t, good, m.FilesKey())
		for i := 0; i < len(raw); i += 1 + len(raw)/200 {
			bad := mem.New()
			raw[i] ^= 0x40
			create(t, bad, m.FilesKey(), raw)
			raw[i] ^= 0x40
			if c, err := companion.Read(t.Context(), data(bad), m, nil); !errors.Is(err, backup.ErrCorrupt) || c != nil {
				t.Fatalf("byte %d of %d: %v", i, len(raw), err)
			}
		}
		for _, other := range [][]byte{raw[:len(raw)-1], append(slices.Clone(raw), 0), {}} {
			bad := mem.New()
			create(t, bad, m.FilesKey(), other)
			if _, err := companion.Read(t.Context(), data(bad), m, nil); !errors.Is(err, backup.ErrCorrupt) {
				t.Errorf("%d bytes for %d: %v", len(other), len(raw), err)
			}
		}
		if _, err := companion.Read(t.Context(), data(mem.New()), m, nil); !errors.Is(err, backup.ErrCorrupt) {
			t.Errorf("no object: %v", err)
		}
	}
}

// TestRead_Hostile: an archive that is not what its manifest lists is refused, even if whoever
// made it has made the sums fit.
func TestRead_Hostile(t *testing.T) {
	dir := tree(t)
	archive := companion.Files{Paths: []string{dir + "/etcd.conf"}}.Collect(t.Context())
	s := mem.New()
	m := stored(t, s, archive, codec.Options{})
	text := "ETCD_NAME=m1\n"
	name := strings.TrimPrefix(dir, "/") + "/etcd.conf"
	file := func(change func(h *tar.Header)) *tar.Header {
		h := &tar.Header{Typeflag: tar.TypeReg, Name: name, Size: int64(len(text)), Mode: 0o640}
		change(h)
		return h
	}
	for what, entries := range map[string][]*tar.Header{
		"another name":  {file(func(h *tar.Header) { h.Name = "etc/passwd" })},
		"up":            {file(func(h *tar.Header) { h.Name = "../../" + name })},
		"absolute":      {file(func(h *tar.Header) { h.Name = "/" + name })},
		"a link":        {file(func(h *tar.Header) { h.Typeflag, h.Linkname, h.Size = tar.TypeSymlink, "/etc/passwd", 0 })},
		"a hard link":   {file(func(h *tar.Header) { h.Typeflag, h.Linkname, h.Size = tar.TypeLink, "/etc/passwd", 0 })},
		"setuid":        {file(func(h *tar.Header) { h.Mode = 0o4640 })},
		"twice":         {file(func(*tar.Header) {}), file(func(*tar.Header) {})},
		"none":          {},
		"one more link": {file(func(*tar.Header) {}), {Typeflag: tar.TypeSymlink, Name: "x", Linkname: "/"}},
	} {
		raw := pack(t, text, entries)
		hostile := *m
		c := *m.Companions
		hostile.Companions = &c
		c.Plain = backup.Blob{Bytes: int64(len(raw)), SHA256: sha256.Sum256(raw)}
		c.Stored = c.Plain
		bad := mem.New()
		create(t, bad, m.FilesKey(), raw)
		if _, err := companion.Read(t.Context(), data(bad), &hostile, nil); !errors.Is(err, backup.ErrCorrupt) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for what, change := range map[string]func(c *backup.Companions){
		"up":        func(c *backup.Companions) { c.Files[0].Path = "/a/../../etc/passwd" },
		"relative":  func(c *backup.Companions) { c.Files[0].Path = "etc/passwd" },
		"root":      func(c *backup.Companions) { c.Files[0].Path = "/" },
		"setuid":    func(c *backup.Companions) { c.Files[0].Mode = "4755" },
		"twice":     func(c *backup.Companions) { c.Files = append(c.Files, c.Files[0]) },
		"huge":      func(c *backup.Companions) { c.Files[0].Bytes = backup.MaxCompanionBytes + 1 },
		"negative":  func(c *backup.Companions) { c.Files[0].Bytes = -1 },
		"no object": func(c *backup.Companions) { c.Stored = backup.Blob{} },
		"no file":   func(c *backup.Companions) { c.Files = nil },
		"no text":   func(c *backup.Companions) { c.Files[0].Path = "/a\nb" },
		"both":      func(c *backup.Companions) { c.Files[0].Link = "/etc/passwd" },
		"no time":   func(c *backup.Companions) { c.At = time.Time{} },
		"below a link": func(c *backup.Companions) {
			c.Files = []backup.CompanionFile{{Path: "/a", Link: "b"}, {Path: "/a-b", Link: "b"}, {Path: "/a/c/d", Link: "e"}}
		},
	} {
		c := *m.Companions
		c.Files = slices.Clone(c.Files)
		change(&c)
		if c.Validate() == nil {
			t.Errorf("a manifest of that kind is believed: %s", what)
		}
	}
}

func pack(t *testing.T, text string, entries []*tar.Header) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, h := range entries {
		if err := w.WriteHeader(h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(text)[:h.Size]); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// TestExtract_Through: links among the files are made last, so that no file is written through
// one, and a failure leaves nothing behind.
func TestExtract_Through(t *testing.T) {
	dir := tree(t)
	outside := t.TempDir()
	link(t, outside, dir+"/pki/z")
	s := mem.New()
	m := stored(t, s, companion.Files{Paths: []string{dir + "/pki", outside}}.Collect(t.Context()), codec.Options{})
	c, err := companion.Read(t.Context(), data(s), m, nil)
	if err != nil {
		t.Fatal(err)
	}
	// The same list, as if a file stood below the link: the reader would have refused it.
	c.About.Files = append(slices.Clone(c.About.Files[:1]), c.About.Files...)
	c.About.Files[0].Path = dir + "/pki/z/planted"
	out := t.TempDir()
	if err := c.Extract(out); err == nil {
		t.Error("a link was made where a folder is")
	}
	for _, d := range []string{outside, out} {
		if left, err := os.ReadDir(d); err != nil || len(left) > 0 {
			t.Errorf("%s holds %v, %v", d, left, err)
		}
	}
}

// TestExtract_Fails: a folder that cannot be made is not taken for a snapshot that is not found.
func TestExtract_Fails(t *testing.T) {
	dir := tree(t)
	s := mem.New()
	m := stored(t, s, companion.Files{Paths: []string{dir + "/pki"}}.Collect(t.Context()), codec.Options{})
	c, err := companion.Read(t.Context(), data(s), m, nil)
	if err != nil {
		t.Fatal(err)
	}
	out := t.TempDir()
	if err := c.Extract(out + "/no/such"); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("without a folder above: %v", err)
	}
	if left, err := os.ReadDir(out); err != nil || len(left) > 0 {
		t.Errorf("%v, %v", left, err)
	}
}

// TestStore_Fails: a store that does not keep the archive costs the companions and nothing else.
func TestStore_Fails(t *testing.T) {
	dir := tree(t)
	archive := companion.Files{Paths: []string{dir + "/pki"}}.Collect(t.Context())
	s := mem.New()
	err := archive.Store(t.Context(), &failing{data(s)}, "prod/data/20261120T101500Z-aaaaaa.files.tar", codec.Options{})
	if err == nil {
		t.Fatal("stored")
	}
	archive.Lost(err)
	c := archive.About
	if c.Validate() != nil || len(c.Files) > 0 || !strings.Contains(missing(c, dir), "the store did not keep it") {
		t.Errorf("%+v: %v", c, c.Validate())
	}
	for o, err := range s.List(t.Context(), "", "") {
		t.Errorf("%s is left, %v", o.Key, err)
	}
}

// failing is a store that returns other bytes than it got.
type failing struct{ companion.Store }

func (f *failing) ReadBack(context.Context, string, backup.Blob, backup.Progress) error {
	return backup.Corruptf("other bytes")
}

// TestChanged: the files of the same host are compared with those of the newest snapshot.
func TestChanged(t *testing.T) {
	dir := tree(t)
	f := companion.Files{Paths: []string{dir + "/pki"}, Host: "h1"}
	m := &backup.Manifest{}
	if !f.Changed(t.Context(), m) || (companion.Files{}).Changed(t.Context(), m) {
		t.Error("a snapshot without companions")
	}
	m.Companions = f.Collect(t.Context()).About
	if f.Changed(t.Context(), m) || !(companion.Files{Host: "h1"}).Changed(t.Context(), m) {
		t.Error("the same files")
	}
	other := f
	other.Host = "h2"
	put(t, dir+"/pki/ca.crt", "NEW", 0o644)
	if !f.Changed(t.Context(), m) || other.Changed(t.Context(), m) {
		t.Error("a certificate was renewed")
	}
	m.Companions = f.Collect(t.Context()).About
	if err := os.Chmod(dir+"/pki/ca.crt", 0o600); err != nil {
		t.Fatal(err)
	}
	if !f.Changed(t.Context(), m) {
		t.Error("a permission was changed")
	}
}

func create(t *testing.T, s *mem.Store, key string, raw []byte) {
	t.Helper()
	if err := s.Create(t.Context(), key, bytes.NewReader(raw)); err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, s *mem.Store, key string) []byte {
	t.Helper()
	r, err := s.Open(t.Context(), key, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(r)
	if err := errors.Join(err, r.Close()); err != nil {
		t.Fatal(err)
	}
	return raw
}
