package kube

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v4"

	"github.com/etcd-backupd/backupd/internal/members"
)

// reader reads YAML and JSON. It keeps its first error, and what it returns afterwards is
// of no use.
type reader struct {
	file string
	err  error
}

func (r *reader) at(line int) members.Position { return members.Position{File: r.file, Line: line} }

// documents returns the roots of all documents.
func (r *reader) documents(raw []byte) []value {
	loader, err := yaml.NewLoader(bytes.NewReader(bytes.TrimPrefix(raw, []byte("\ufeff"))))
	var out []value
	for err == nil {
		var doc yaml.Node
		if err = loader.Load(&doc); err == nil && len(doc.Content) == 1 {
			out = append(out, value{r, doc.Content[0], doc.Content[0].Line})
		}
	}
	if !errors.Is(err, io.EOF) {
		line := 0
		message := err.Error()
		var e *yaml.LoadError
		if errors.As(err, &e) {
			line, message = e.Mark.Line, e.Message
		}
		r.err = r.at(line).Errorf("not YAML: %s", message)
	}
	return out
}

// objects returns the objects of documents, those of lists among them.
func (r *reader) objects(docs []value) []value {
	var out []value
	for _, doc := range docs {
		if doc.null() {
			continue
		}
		kind := doc.get("kind").text()
		if items := doc.get("items"); strings.HasSuffix(kind, "List") {
			for _, item := range items.items() {
				if typed := item.get("kind"); typed.absent() && kind != "List" {
					// The items of a PodList need not say that they are Pods.
					item.n = withKind(item.n, strings.TrimSuffix(kind, "List"))
				}
				out = append(out, item)
			}
			continue
		}
		out = append(out, doc)
	}
	return out
}

func withKind(n *yaml.Node, kind string) *yaml.Node {
	with := *n
	with.Content = append([]*yaml.Node{
		{Kind: yaml.ScalarNode, Tag: "!!str", Value: "kind", Line: n.Line},
		{Kind: yaml.ScalarNode, Tag: "!!str", Value: kind, Line: n.Line},
	}, n.Content...)
	return &with
}

// value is a part of the file. One that is not there has no node, and the line of what it
// would be in.
type value struct {
	r    *reader
	n    *yaml.Node
	line int
}

func (v value) absent() bool { return v.n == nil || v.null() }

func (v value) null() bool {
	return v.n != nil && v.n.Kind == yaml.ScalarNode && v.n.ShortTag() == "!!null"
}

func (v value) at() members.Position { return v.r.at(v.line) }

// failf keeps an error with the line of the value.
func (v value) failf(format string, args ...any) {
	if v.r.err == nil {
		v.r.err = v.at().Errorf(format, args...)
	}
}

// of returns the value of a node, with its alias followed.
func (v value) of(n *yaml.Node) value {
	line := n.Line
	for i := 0; n.Kind == yaml.AliasNode && n.Alias != nil; i++ {
		n = n.Alias
		if i > 10 {
			v.failf("an alias of an alias of an alias")
			return value{v.r, nil, line}
		}
	}
	return value{v.r, n, line}
}

// get returns the value of a key of a mapping.
func (v value) get(key string) value {
	out := value{v.r, nil, v.line}
	if v.absent() {
		return out
	}
	if v.n.Kind != yaml.MappingNode {
		v.failf("want a section with %s", key)
		return out
	}
	for i := 0; i+1 < len(v.n.Content); i += 2 {
		k := v.n.Content[i]
		switch {
		case k.ShortTag() == "!!merge" || k.Value == "<<" && k.Style == 0:
			v.of(k).failf("merge keys are not followed: write the values here")
		case k.Kind != yaml.ScalarNode:
			v.of(k).failf("a key must be text")
		case k.Value != key:
		case out.n != nil:
			v.of(k).failf("%s is here for the second time, the first is in line %d", key, out.line)
		default:
			out = v.of(v.n.Content[i+1])
			if out.n != nil && out.n.Kind != yaml.ScalarNode {
				out.line = k.Line
			}
		}
	}
	return out
}

// items returns the values of a list.
func (v value) items() []value {
	if v.absent() {
		return nil
	}
	if v.n.Kind != yaml.SequenceNode {
		v.failf("want a list")
		return nil
	}
	var out []value
	for _, n := range v.n.Content {
		out = append(out, v.of(n))
	}
	return out
}

// keys returns those of a mapping.
func (v value) keys() []string {
	if v.absent() || v.n.Kind != yaml.MappingNode {
		return nil
	}
	var out []string
	for i := 0; i+1 < len(v.n.Content); i += 2 {
		out = append(out, v.n.Content[i].Value)
	}
	return out
}

// notText is what YAML 1.1, which Kubernetes reads, takes for another type than text.
var notText = regexp.MustCompile(`(?i)^([yn]|yes|no|on|off|true|false|null|~|` +
	`[-+]?(0b[01_]+|0x[0-9a-f_]+|0o?[0-7_]+|[0-9][0-9_]*)|` +
	`[-+]?(\.[0-9_]+|[0-9][0-9_]*(\.[0-9_]*)?)(e[-+]?[0-9]+)?|[-+]?\.inf|\.nan)$`)

// word returns text with its place. That of a block begins a line below the key.
func (v value) word() members.Word {
	if v.absent() {
		return members.Word{}
	}
	w := members.Word{At: v.at()}
	switch {
	case v.n.Kind != yaml.ScalarNode:
		v.failf("want text, not a section or a list")
	case v.n.Style&yaml.TaggedStyle != 0:
		v.failf("YAML tags such as %s are not followed", v.n.Tag)
	case v.n.ShortTag() != "!!str" && v.n.ShortTag() != "!!timestamp",
		v.n.Style == 0 && notText.MatchString(v.n.Value):
		v.failf("%s is not text for Kubernetes, which refuses it here: put quotes around it", v.n.Value)
	case strings.ContainsFunc(v.n.Value, isMark) || strings.Contains(v.n.Value, "\x00"):
		v.failf("the text must not hold NUL or private characters of Unicode")
	default:
		w.Text = v.n.Value
	}
	if v.n.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0 {
		w.At.Line++
	}
	return w
}

func (v value) text() string { return v.word().Text }

// number returns a whole number that is not negative.
func (v value) number(without int) int {
	if v.absent() {
		return without
	}
	n, err := strconv.Atoi(v.n.Value)
	if v.n.Kind != yaml.ScalarNode || v.n.ShortTag() != "!!int" || v.n.Style != 0 || err != nil || n < 0 ||
		n > 1<<31-1 || v.n.Value != fmt.Sprint(n) {
		v.failf("want a whole number")
		return without
	}
	return n
}

// truth returns true or false.
func (v value) truth() bool {
	if v.absent() {
		return false
	}
	if v.n.Kind != yaml.ScalarNode || !slices.Contains([]string{"true", "false"}, v.n.Value) || v.n.Style != 0 {
		v.failf("want true or false")
	}
	return v.n.Value == "true"
}
