package backup

import (
	"errors"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

const (
	// MaxCompanionBytes is how many bytes the companion files of one snapshot may have in all.
	MaxCompanionBytes = 64 << 20
	// MaxCompanions is how many companion files one snapshot may have.
	MaxCompanions = 1000
	// MaxCompanionPath is how many bytes a path or the target of a link may have.
	MaxCompanionPath = 1024
)

// Companions are files of a host, and Secrets of Kubernetes, that a restore may need. Their content
// has an object of its own.
type Companions struct {
	// Host is the name of the host that the files are of.
	Host string `json:"host"`
	// At is when they were read.
	At time.Time `json:"at"`
	// Paths are the files and folders that were asked for, and what From refers to.
	Paths []string `json:"paths"`
	// From are the files that start etcd, and Absent what they refer to and was not there.
	From   []string `json:"starts,omitempty"`
	Absent []string `json:"absent,omitempty"`
	// Secrets are the Secrets that were asked for, as NAMESPACE/NAME. Each is files at [SecretPath].
	Secrets []string `json:"secrets,omitempty"`
	// Files are those that are stored, in the order of their paths, and Missing those that
	// are not, each with the reason.
	Files   []CompanionFile    `json:"files"`
	Missing []MissingCompanion `json:"missing,omitempty"`
	// Plain is the archive, and Stored the object. Both are zero if there is no object.
	Plain  Blob `json:"plain,omitzero"`
	Stored Blob `json:"stored,omitzero"`
}

// CompanionFile is one file, or a link that stands among the files.
type CompanionFile struct {
	Path string `json:"path"` // absolute, on its host, or at [SecretPath]
	// Mode are the permissions of a file, as 0600; empty for a link.
	Mode   string `json:"mode,omitempty"`
	Bytes  int64  `json:"bytes"`
	SHA256 Digest `json:"sha256,omitzero"`
	Link   string `json:"link,omitempty"` // the target of a link, as it stands there
}

// MissingCompanion is a file that could not be stored.
type MissingCompanion struct {
	Path   string `json:"path"`
	Reason string `json:"reason"`
}

var companionMode = regexp.MustCompile(`^0[0-7]{3}$`)

// Validate checks what a writer must not write, and what a reader must not believe.
func (c *Companions) Validate() error {
	switch {
	case c == nil:
		return nil
	case c.At.IsZero():
		return errors.New("companions: no time")
	case (c.Stored == Blob{}) != (len(c.Files) == 0) || (c.Plain == Blob{}) != (c.Stored == Blob{}):
		return errors.New("companions: files without an object, or an object without files")
	case len(c.Files) > 0 && (c.Stored.SHA256.IsZero() || c.Plain.SHA256.IsZero()):
		return errors.New("companions: the sha256 of the object is missing")
	case len(c.Files) > MaxCompanions:
		return fmt.Errorf("companions: %d files are more than %d", len(c.Files), MaxCompanions)
	}
	if err := c.validateSecrets(); err != nil {
		return fmt.Errorf("companions: %w", err)
	}
	total, before, seen := int64(0), "", map[string]bool{}
	for _, f := range c.Files {
		if err := f.validate(); err != nil {
			return fmt.Errorf("companions: %w", err)
		}
		if f.Path <= before {
			return fmt.Errorf("companions: %q is not in order", f.Path)
		}
		before = f.Path
		for above := path.Dir(before); above != "/"; above = path.Dir(above) {
			if seen[above] {
				return fmt.Errorf("companions: %q is below %q, which is no folder", f.Path, above)
			}
		}
		seen[before] = true
		if total += f.Bytes; f.Bytes < 0 || f.Bytes > MaxCompanionBytes || total > MaxCompanionBytes {
			return fmt.Errorf("companions: %q: more than %d bytes in all", f.Path, MaxCompanionBytes)
		}
	}
	return nil
}

func (f *CompanionFile) validate() error {
	if err := CheckCompanionPath(f.Path); err != nil {
		return err
	}
	switch {
	case f.Link != "" && (f.Mode != "" || f.Bytes != 0 || !f.SHA256.IsZero()):
		return fmt.Errorf("%q is a link and a file", f.Path)
	case f.Link != "":
		return CheckCompanionLink(f.Link)
	case f.SHA256.IsZero() || !companionMode.MatchString(f.Mode):
		return fmt.Errorf("%q: mode or sha256 is missing", f.Path)
	}
	return nil
}

// CheckCompanionPath reports why a path cannot be that of a companion, or nil.
func CheckCompanionPath(p string) error {
	if len(p) > MaxCompanionPath {
		return fmt.Errorf("%q...: a path of %d bytes, want at most %d", p[:50], len(p), MaxCompanionPath)
	}
	if !path.IsAbs(p) || path.Clean(p) != p || p == "/" || !printable(p) {
		return fmt.Errorf("%q: want an absolute path in its shortest form", p)
	}
	return nil
}

func printable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) })
}

// CheckCompanionLink reports why a link cannot be stored, or nil.
func CheckCompanionLink(target string) error {
	if !printable(target) || len(target) > MaxCompanionPath {
		return errors.New("it is a link to something that is no line of text")
	}
	return nil
}

// FilesKey names the object with the companion files, or is empty if there is none.
func (m *Manifest) FilesKey() string {
	if m.Companions == nil || len(m.Companions.Files) == 0 {
		return ""
	}
	k := Key{Cluster: m.Cluster, Kind: KindData, Data: m.ID.DataName(), Files: true, Suffix: m.Encoding.Suffix()}
	return k.String()
}

// DataKeys names all objects that the manifest describes.
func (m *Manifest) DataKeys() []string {
	return slices.DeleteFunc([]string{m.DataKey(), m.FilesKey()}, func(key string) bool { return key == "" })
}
