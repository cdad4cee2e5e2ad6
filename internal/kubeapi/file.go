package kubeapi

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// FileError says what is wrong with a kubeconfig, and in which line.
type FileError struct {
	File   string
	Line   int // 0: the whole file
	Reason error
}

// Error returns FILE:LINE: reason.
func (e *FileError) Error() string {
	if e.Line == 0 {
		return fmt.Sprintf("%s: %v", e.File, e.Reason)
	}
	return fmt.Sprintf("%s:%d: %v", e.File, e.Line, e.Reason)
}

func (e *FileError) Unwrap() error { return e.Reason }

// file is a kubeconfig. It keeps its first error, and what is read of it afterwards is of no use.
type file struct {
	path string
	err  error
}

// beside returns a path in the file, which means one beside the file unless it is absolute.
func (v value) beside() string {
	if filepath.IsAbs(v.text()) {
		return v.text()
	}
	return filepath.Join(filepath.Dir(v.f.path), v.text())
}

// failToRead says why the file that v names cannot be read. Only an absolute path is repeated: people
// write a token or a key itself where its file is to be named, and the reason stands in manifests.
func (v value) failToRead(err error) {
	text := err.Error()
	if !filepath.IsAbs(v.text()) {
		text = strings.ReplaceAll(text, v.beside(), "the file that it names")
	}
	v.fail("%s: %s", v.key, text)
}

func (f *file) load() (value, error) {
	raw, err := readFile(f.path)
	if err != nil {
		if of := (*fs.PathError)(nil); errors.As(err, &of) {
			err = of.Err // the path is named already
		}
		return value{}, &FileError{f.path, 0, err}
	}
	var doc yaml.Node
	loader, err := yaml.NewLoader(bytes.NewReader(raw))
	if err == nil {
		err = loader.Load(&doc)
	}
	if err != nil || len(doc.Content) != 1 {
		line := 0
		if e := (*yaml.LoadError)(nil); errors.As(err, &e) {
			line = e.Mark.Line
		}
		return value{}, &FileError{f.path, line, errors.New("this is not YAML")} // what follows may be a key
	}
	root := value{f: f, n: doc.Content[0], line: doc.Content[0].Line}
	if root.n.Kind != yaml.MappingNode {
		root.fail("this is no kubeconfig")
	}
	return root, f.err
}

// value is a part of the file. One that is not there has no node, and the line of what it would
// be in.
type value struct {
	f    *file
	n    *yaml.Node
	line int
	key  string
}

func (v value) fail(format string, args ...any) {
	if v.f.err == nil {
		v.f.err = &FileError{v.f.path, v.line, fmt.Errorf(format, args...)}
	}
}

// get returns the value of a key.
func (v value) get(key string) value {
	out := value{f: v.f, line: v.line, key: key}
	if v.n == nil {
		return out
	}
	if v.n.Kind != yaml.MappingNode {
		v.fail("%s: want a section with keys", v.key)
		return out
	}
	for i := 0; i+1 < len(v.n.Content); i += 2 {
		name, n := v.n.Content[i], v.n.Content[i+1]
		if name.Value != key {
			continue
		}
		if out.n != nil {
			value{f: v.f, line: name.Line}.fail("%s is there twice", key)
		}
		if n.Kind == yaml.AliasNode {
			n = n.Alias
		}
		out.n, out.line = n, name.Line
		if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" {
			out.n = nil
		}
	}
	return out
}

// must is get of what must be there.
func (v value) must(key string) value {
	out := v.get(key)
	if out.text() == "" {
		out.fail("there is no %s", key)
	}
	return out
}

// text returns a text, or nothing if there is none.
func (v value) text() string {
	if v.n == nil {
		return ""
	}
	if v.n.Kind != yaml.ScalarNode {
		v.fail("%s: want a text", v.key)
		return ""
	}
	return v.n.Value
}

// keyName is what a key may be: all else may be a secret.
var keyName = regexp.MustCompile(`^[A-Za-z][A-Za-z-]{0,31}$`)

// known refuses each key that is not among these, and each that backupd cannot follow.
func (v value) known(keys ...string) {
	if v.n == nil || v.n.Kind != yaml.MappingNode {
		return
	}
	for i := 0; i+1 < len(v.n.Content); i += 2 {
		name := v.n.Content[i]
		switch at := (value{f: v.f, line: name.Line}); {
		case slices.Contains(keys, name.Value):
		case keyName.MatchString(name.Value):
			at.fail("%q is a key that backupd does not know", name.Value)
		default: // a token without a space before it
			at.fail("there is a key that backupd does not know")
		}
		of := v.get(name.Value)
		why, refused := refusals[name.Value]
		off := of.n == nil || of.n.Kind == yaml.ScalarNode && (of.n.Value == "" || of.n.Value == "false")
		if refused && !off {
			of.fail("%s: %s", name.Value, why)
		}
	}
}

// named returns the entry of a list that has a name.
func (v value) named(list, key string, name value) value {
	out := value{f: v.f, line: name.line, key: key}
	all := v.get(list)
	if all.n == nil || all.n.Kind != yaml.SequenceNode {
		all.fail("%s: want a list", list)
		return out
	}
	found := 0
	for _, n := range all.n.Content {
		item := value{f: v.f, n: n, line: n.Line, key: list}
		if item.get("name").text() != name.text() {
			continue
		}
		if found++; found > 1 {
			item.fail("%s: %.80q is there twice", list, name.text())
		}
		item.known("name", key)
		out = item.get(key)
	}
	if found == 0 {
		name.fail("there is no %.80q in %s", name.text(), list)
	}
	return out
}
