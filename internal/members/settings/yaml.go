package settings

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

// sections are keys of the file that hold others, and what precedes those in the name of
// the flag.
var sections = map[string]string{
	"client-transport-security": "", "peer-transport-security": "peer-", "discovery-config": "discovery-",
	"socket-options": "socket-",
}

// decisive are the settings that say who a member is and where its data is. What etcd would
// make of an unusual spelling of them is not guessed.
var decisive = []string{
	"name", "data-dir", "wal-dir", "initial-advertise-peer-urls", "listen-peer-urls", "initial-cluster",
	"initial-cluster-token", "initial-cluster-state", "discovery", "discovery-srv", "discovery-srv-name", "proxy",
}

// Recognize is true for what is plainly etcd's own configuration file: one section
// with some of its keys.
func Recognize(_ string, raw []byte) bool {
	root, err := parse(raw)
	if err != nil || root == nil || root.Kind != yaml.MappingNode {
		return false
	}
	for i := 0; i+1 < len(root.Content); i += 2 {
		switch key := root.Content[i].Value; {
		case key == "apiVersion" || key == "kind" || key == "services":
			return false
		case slices.Contains(decisive[1:], key):
			return true
		}
	}
	return false
}

// Read returns the start of etcd with its own configuration file, when nothing says how it is
// started with that: the file is its only argument.
func Read(file string, _ []byte, _ members.ReadOptions) ([]members.Start, error) {
	at := members.Position{File: file}
	return []members.Start{{
		Means: members.ByHand, Of: at, Args: []members.Word{{Text: "--config-file=" + file, At: at}},
	}}, nil
}

// parse returns the one document in raw, nil for an empty one.
func parse(raw []byte) (*yaml.Node, error) {
	d := yaml.NewDecoder(bytes.NewReader(raw))
	var doc, second yaml.Node
	if err := d.Decode(&doc); errors.Is(err, io.EOF) {
		return nil, nil
	} else if err != nil {
		return nil, err
	}
	if err := d.Decode(&second); !errors.Is(err, io.EOF) {
		return nil, errors.New("there is a second document in it")
	}
	if doc.Kind != yaml.DocumentNode || len(doc.Content) != 1 {
		return nil, nil
	}
	return doc.Content[0], nil
}

// fromYAML takes the settings from etcd's configuration file.
func (h *Host) fromYAML(file string, raw []byte) error {
	h.Settings = nil
	root, err := parse(raw)
	if err != nil {
		return members.Position{File: file}.Errorf("etcd's configuration file is not understood: %v", err)
	}
	if root == nil || root.Kind == yaml.ScalarNode && root.ShortTag() == "!!null" {
		return nil
	}
	return section(file, root, func(key string, n *yaml.Node) error {
		if prefix, ok := sections[key]; ok {
			return section(file, n, func(key string, n *yaml.Node) error {
				return h.take(file, prefix+strings.Replace(key, "allowed-", "cert-allowed-", 1), key, n)
			})
		}
		return h.take(file, key, key, n)
	})
}

// section calls take for each key of a section.
func section(file string, n *yaml.Node, take func(key string, n *yaml.Node) error) error {
	at := func(n *yaml.Node) members.Position { return members.Position{File: file, Line: n.Line} }
	if n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" {
		return nil
	}
	if n.Kind != yaml.MappingNode || n.Anchor != "" {
		return at(n).Errorf("a section with keys is expected here")
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		switch folded := strings.ToLower(key.Value); {
		case key.Kind != yaml.ScalarNode || key.Value == "<<" || key.Anchor != "" || key.Style&yaml.TaggedStyle != 0:
			return at(key).Errorf("this key is not understood")
		case seen[folded]:
			return at(key).Errorf("%s is there twice", key.Value)
		case folded != key.Value && slices.Contains(decisive, folded):
			return at(key).Errorf("spell %s as %s", key.Value, folded)
		default:
			seen[folded] = true
		}
		if err := take(key.Value, value); err != nil {
			return err
		}
	}
	return nil
}

// take takes one key.
func (h *Host) take(file, name, key string, n *yaml.Node) error {
	at := members.Position{File: file, Line: n.Line}
	f, ok := flags[name]
	if !ok {
		h.note(at, fmt.Sprintf("etcd does not know the key %s in its configuration file and ignores it", key))
		return nil
	}
	value, err := valueOf(n)
	if err != nil && slices.Contains(decisive, name) {
		return at.Errorf("%s: %v", key, err)
	}
	if problem := f.checkType(name, n); problem != "" {
		return at.Errorf("%s: %s", key, problem)
	}
	if value == "" {
		if name == "name" && n.Style != 0 {
			return at.Errorf("%s is empty: etcd needs a name", key)
		}
		return nil
	}
	s := Setting{name, value, key + ":", at}
	h.Settings = append(h.Settings, s)
	if f.kind == urls || f.kind == choice && slices.Contains(decisive, name) {
		return check(s)
	}
	return nil
}

// checkType says why etcd would not take the type of a value.
func (f flag) checkType(name string, n *yaml.Node) string {
	if n.ShortTag() == "!!null" || f.last < newest {
		return ""
	}
	switch f.kind {
	case boolean:
		if n.ShortTag() != "!!bool" {
			return "etcd wants true or false here"
		}
	case signed, unsigned, unsigned32:
		if n.ShortTag() != "!!int" {
			return "etcd wants a number here, without quotes"
		}
	case text, urls:
		list := slices.Contains([]string{
			"cipher-suites", "log-outputs", "peer-cert-allowed-cn", "peer-cert-allowed-hostname",
			"client-cert-allowed-hostname", "discovery-endpoints",
		}, name)
		if n.Kind != yaml.ScalarNode && !list {
			return "etcd wants a text here"
		}
	}
	return ""
}

// valueOf returns a value as the text that etcd takes, empty if none is written.
func valueOf(n *yaml.Node) (string, error) {
	switch {
	case n.Anchor != "" || n.Kind == yaml.AliasNode || n.Style&yaml.TaggedStyle != 0:
		return "", errors.New("anchors and tags are not understood here")
	case n.Kind == yaml.SequenceNode:
		var parts []string
		for _, c := range n.Content {
			parts = append(parts, c.Value)
		}
		return strings.Join(parts, ","), errors.New("it is a list, and etcd wants a text")
	case n.Kind != yaml.ScalarNode:
		return "", errors.New("it is not a single value, and etcd wants a text")
	}
	const quotes = yaml.SingleQuotedStyle | yaml.DoubleQuotedStyle | yaml.LiteralStyle | yaml.FoldedStyle
	if n.Style&quotes != 0 {
		return n.Value, nil
	}
	if n.ShortTag() == "!!null" {
		return "", nil
	}
	if otherwise(n.Value) {
		return n.Value, fmt.Errorf("%s without quotes may be a number, a date or a truth to etcd: quote it", n.Value)
	}
	return n.Value, nil
}

var (
	truth = regexp.MustCompile(`(?i)^(y|n|yes|no|on|off|true|false|~|null|=|[-+]?\.(inf|nan))$`)
	date  = regexp.MustCompile(`^[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}`)
)

// otherwise is true for what some reader of YAML takes for other than the text that is written.
func otherwise(plain string) bool {
	_, notFloat := strconv.ParseFloat(strings.ReplaceAll(plain, "_", ""), 64)
	_, notInt := strconv.ParseInt(strings.ReplaceAll(plain, "_", ""), 0, 64)
	return notFloat == nil || notInt == nil || truth.MatchString(plain) || date.MatchString(plain)
}
