// Package plainyaml writes JSON as YAML for people, and reads it back strictly: one
// document of plain values, without anchors, tags, merged or repeated keys. So what a
// person reads is what the program reads.
package plainyaml

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"

	"go.yaml.in/yaml/v4"
)

// Error is a mistake in a document.
type Error struct {
	Line    int // the first is 1; 0 if it is about the whole
	Message string
}

// Error returns the message.
func (e *Error) Error() string { return e.Message }

// FromJSON returns the JSON document raw as YAML, its keys in the same order. Values that
// are null are left out.
func FromJSON(raw []byte) ([]byte, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(raw, &doc); err != nil { // JSON is YAML, too
		return nil, fmt.Errorf("read JSON: %w", err)
	}
	block(&doc)
	var out bytes.Buffer
	e := yaml.NewEncoder(&out)
	e.SetIndent(2)
	if err := e.Encode(&doc); err != nil {
		return nil, fmt.Errorf("write YAML: %w", err)
	}
	return out.Bytes(), e.Close()
}

// block gives n the style that people write: one value in a line, and quotes where text
// would be taken for something else.
func block(n *yaml.Node) {
	n.Style = 0
	if n.Kind == yaml.MappingNode {
		var kept []*yaml.Node
		for i := 0; i+1 < len(n.Content); i += 2 {
			if n.Content[i+1].ShortTag() != "!!null" {
				kept = append(kept, n.Content[i], n.Content[i+1])
			}
		}
		n.Content = kept
	}
	for _, c := range n.Content {
		block(c)
	}
}

// Document is a document that was read.
type Document struct{ root *yaml.Node }

// Parse reads one document. The error is an [*Error].
func Parse(raw []byte) (*Document, error) {
	loader, err := yaml.NewLoader(bytes.NewReader(raw))
	if err != nil {
		return nil, &Error{0, err.Error()}
	}
	var doc, more yaml.Node
	if err := loader.Load(&doc); errors.Is(err, io.EOF) || err == nil && len(doc.Content) == 0 {
		return nil, &Error{0, "it is empty"}
	} else if err != nil {
		return nil, syntax(err)
	}
	switch err := loader.Load(&more); {
	case err == nil:
		return nil, &Error{more.Line, "a second document begins here"}
	case !errors.Is(err, io.EOF):
		return nil, syntax(err)
	}
	root := doc.Content[0]
	if root.Kind != yaml.MappingNode {
		return nil, &Error{root.Line, "want keys with their values"}
	}
	return &Document{root}, check(root)
}

func syntax(err error) error {
	var e *yaml.LoadError
	if errors.As(err, &e) {
		return &Error{e.Mark.Line, "not YAML: " + e.Message}
	}
	return &Error{0, "not YAML: " + err.Error()}
}

var whole = regexp.MustCompile(`^(0|-?[1-9][0-9]*)$`)

// check refuses all that is not plain.
func check(n *yaml.Node) error {
	switch tag := n.ShortTag(); {
	case n.Kind == yaml.AliasNode || n.Anchor != "":
		return &Error{n.Line, "anchors and aliases are not allowed: write the value out"}
	case n.Style&yaml.TaggedStyle != 0:
		return &Error{n.Line, "tags such as " + n.Tag + " are not allowed"}
	case n.Kind == yaml.ScalarNode && (tag == "!!null" || tag == "!!float" || tag == "!!merge" ||
		tag == "!!int" && !whole.MatchString(n.Value) ||
		tag == "!!bool" && n.Value != "true" && n.Value != "false"):
		return &Error{n.Line, fmt.Sprintf(
			"%q is no plain text, whole number, true or false: put quotes around a text", n.Value)}
	}
	seen := map[string]bool{}
	for i, c := range n.Content {
		if n.Kind == yaml.MappingNode && i%2 == 0 {
			if c.Kind != yaml.ScalarNode || seen[c.Value] {
				return &Error{c.Line, fmt.Sprintf("the key %q is used twice, or is none", c.Value)}
			}
			seen[c.Value] = true
		}
		if err := check(c); err != nil {
			return err
		}
	}
	return nil
}

// Decode fills what v points to, as [json.Unmarshal] would from the same values. A key for
// which v has no place, also one that differs in the case of a letter, or a value of another
// kind, is an [*Error].
func (d *Document) Decode(v any) error {
	if err := known(d.root, reflect.TypeOf(v)); err != nil {
		return err
	}
	raw, err := json.Marshal(value(d.root))
	if err != nil {
		return &Error{0, err.Error()}
	}
	err = json.Unmarshal(raw, v)
	var kind *json.UnmarshalTypeError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &kind):
		return &Error{d.line(last(kind.Field)), fmt.Sprintf(
			"%s: want another kind of value than a %s", kind.Field, kind.Value)}
	}
	return &Error{0, err.Error()}
}

func last(path string) string {
	return regexp.MustCompile(`[^.]*$`).FindString(path)
}

// Text returns the text of a key of the document itself, or "".
func (d *Document) Text(key string) string {
	for i := 0; i+1 < len(d.root.Content); i += 2 {
		if d.root.Content[i].Value == key {
			return d.root.Content[i+1].Value
		}
	}
	return ""
}

// line returns the line of the first key of that name.
func (d *Document) line(key string) int {
	var find func(n *yaml.Node) int
	find = func(n *yaml.Node) int {
		for i, c := range n.Content {
			if n.Kind == yaml.MappingNode && i%2 == 0 && c.Value == key {
				return c.Line
			}
			if at := find(c); at > 0 {
				return at
			}
		}
		return 0
	}
	return find(d.root)
}

// value returns a node as [json.Marshal] takes it.
func value(n *yaml.Node) any {
	switch n.Kind {
	case yaml.MappingNode:
		out := map[string]any{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			out[n.Content[i].Value] = value(n.Content[i+1])
		}
		return out
	case yaml.SequenceNode:
		out := []any{}
		for _, c := range n.Content {
			out = append(out, value(c))
		}
		return out
	}
	switch n.ShortTag() {
	case "!!int":
		return json.Number(n.Value)
	case "!!bool":
		return n.Value == "true"
	}
	return n.Value
}
