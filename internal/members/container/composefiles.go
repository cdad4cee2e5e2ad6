package container

import (
	"errors"
	"io/fs"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/dotenv"
	"go.yaml.in/yaml/v4"

	"github.com/etcd-backupd/backupd/internal/members"
)

// readDotEnv reads the variables beside the compose file.
func (c *compose) readDotEnv() error {
	c.env = map[string]string{}
	if c.o.ReadFile == nil {
		return nil
	}
	name := path.Join(c.dir, ".env")
	raw, err := c.o.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return members.Position{File: name}.Errorf("%v", err)
	}
	env, err := c.dotEnv(name, raw)
	if err != nil {
		return err
	}
	for _, v := range env {
		c.env[v.Name] = v.Value.Text
	}
	return nil
}

// dotEnv reads a file of variables by the rules of compose.
func (c *compose) dotEnv(name string, raw []byte) ([]members.Variable, error) {
	at := members.Position{File: name}
	if at.Line = grows(string(raw)); at.Line > 0 {
		return nil, at.Errorf("the text gets too long to be followed")
	}
	var unknown string
	vars, err := dotenv.UnmarshalBytesWithLookup(raw, func(key string) (string, bool) {
		v, ok := c.env[key]
		if !ok {
			unknown = key
		}
		return v, true
	})
	if err != nil {
		return nil, at.Errorf("%v", err)
	}
	if unknown != "" {
		return nil, line(at, raw, unknown).Errorf("the value of %s is that of whoever runs compose", unknown)
	}
	var out []members.Variable
	for key, value := range vars {
		out = append(out, members.Variable{Name: key, Value: members.Word{Text: value, At: line(at, raw, key)}})
	}
	slices.SortFunc(out, func(a, b members.Variable) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

var reference = regexp.MustCompile(`\$\{?([A-Za-z_][A-Za-z0-9_]*)`)

// grows returns the line on which a value gets too long, because it has others in it, and 0 if none does.
func grows(text string) int {
	lengths := map[string]int{}
	n, longest, folded := 0, 0, false
	for l := range strings.SplitSeq(text, "\n") {
		n++
		name, value, _ := strings.Cut(strings.TrimPrefix(strings.TrimSpace(l), "export "), "=")
		length := len(value)
		// In a value of several lines it is not looked for the name that a line belongs to.
		folded = folded || strings.Count(l, `"`)%2 == 1 || strings.Count(l, "'")%2 == 1
		for _, r := range reference.FindAllStringSubmatch(l, -1) {
			if folded {
				length += longest
			}
			if length += lengths[r[1]]; length > members.MaxValueBytes {
				return n
			}
		}
		name = strings.TrimSpace(name)
		lengths[name] = max(lengths[name], length)
		longest = max(longest, length)
	}
	return 0
}

// line is the last one that has a variable, as an assignment if there is one.
func line(at members.Position, raw []byte, key string) members.Position {
	set := regexp.MustCompile(`^\s*(export\s+)?` + regexp.QuoteMeta(key) + `\s*[=:]`)
	sure := false
	for i, l := range strings.Split(string(raw), "\n") {
		if set.MatchString(l) {
			at.Line, sure = i+1, true
		} else if !sure && strings.Contains(l, key) {
			at.Line = i + 1
		}
	}
	return at
}

// envFiles reads env_file.
func (c *compose) envFiles(s *settings, n *yaml.Node) error {
	for _, f := range list(n) {
		required, format := true, ""
		if f.Kind == yaml.MappingNode {
			if r := get(f, "required"); r != nil {
				required = r.Value != "false"
			}
			if r := get(f, "format"); r != nil {
				format = r.Value
			}
			if f = get(f, "path"); f == nil {
				return c.at(n).Errorf("env_file without a path is not understood")
			}
		}
		w, err := c.text(f)
		if err != nil {
			return err
		}
		if format != "" {
			return w.At.Errorf("env_file with a format is not understood")
		}
		name := c.resolve(w.Text)
		if c.o.ReadFile == nil {
			return w.At.Errorf("%s is not read", name)
		}
		raw, err := c.o.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) && !required {
			continue
		}
		if err != nil {
			return w.At.Errorf("%v", err)
		}
		vars, err := c.dotEnv(name, raw)
		if err != nil {
			return err
		}
		for _, v := range vars {
			s.env = set(s.env, v)
		}
	}
	return nil
}

// environment is a mapping, or a list of NAME=value and NAME.
func (c *compose) environment(s *settings, n *yaml.Node) error {
	take := func(name string, value *members.Word, at members.Position) error {
		if value != nil {
			s.env = set(s.env, members.Variable{Name: name, Value: *value})
			return nil
		}
		if v, ok := c.env[name]; ok {
			s.env = set(s.env, members.Variable{Name: name, Value: members.Word{Text: v, At: at}})
			return nil
		}
		if strings.HasPrefix(name, "ETCD_") {
			return at.Errorf("the value of %s is that of whoever runs compose", name)
		}
		return nil
	}
	if n.Kind == yaml.MappingNode {
		for _, p := range pairs(n) {
			w, err := c.text(p.value)
			if err != nil {
				return err
			}
			value := &w
			if p.value.Tag == "!!null" {
				value = nil
			}
			if err := take(p.key, value, c.at(p.at)); err != nil {
				return err
			}
		}
		return nil
	}
	for _, e := range list(n) {
		w, err := c.text(e)
		if err != nil {
			return err
		}
		name, text, ok := strings.Cut(w.Text, "=")
		value := &members.Word{Text: text, At: w.At}
		if !ok {
			value = nil
		}
		if err := take(name, value, w.At); err != nil {
			return err
		}
	}
	return nil
}

// mounts reads volumes, in the short and in the long form.
func (c *compose) mounts(s *settings, n *yaml.Node) error {
	for _, e := range list(n) {
		var m members.Mount
		var err error
		if e.Kind == yaml.MappingNode {
			m, err = c.longVolume(e)
		} else {
			var w members.Word
			if w, err = c.text(e); err == nil {
				m, err = mount(w, c.dir)
			}
		}
		if err == nil && m.Volume != "" && m.Volume != "tmpfs" {
			err = c.named(&m)
		}
		if err != nil {
			return err
		}
		// The last one of a place counts.
		s.mounts = append(slices.DeleteFunc(s.mounts, func(o members.Mount) bool {
			return path.Clean(o.Inside.Text) == path.Clean(m.Inside.Text)
		}), m)
	}
	return nil
}

func (c *compose) longVolume(n *yaml.Node) (m members.Mount, err error) {
	words := map[string]members.Word{}
	for _, p := range pairs(n) {
		if p.value.Kind == yaml.MappingNode {
			if get(p.value, "subpath") != nil {
				return m, c.at(p.at).Errorf("a volume with a subpath is not understood")
			}
			continue
		}
		if words[p.key], err = c.text(p.value); err != nil {
			return m, err
		}
	}
	m.Inside, m.ReadOnly = words["target"], words["read_only"].Text == "true"
	source := words["source"]
	if source.At.File == "" {
		source.At = c.at(n)
	}
	return typed(m, words["type"].Text, source, c.dir)
}

// named looks at the volumes of the file: one may be a folder of the host by its options.
func (c *compose) named(m *members.Mount) error {
	v := get(c.volumes, m.Volume)
	if v == nil {
		return nil
	}
	options := get(v, "driver_opts")
	if name := get(v, "name"); name != nil {
		w, err := c.text(name)
		if err != nil {
			return err
		}
		m.Volume = w.Text
	}
	if options == nil {
		return nil
	}
	words := map[string]members.Word{}
	for _, p := range pairs(options) {
		w, err := c.text(p.value)
		if err != nil {
			return err
		}
		words[p.key] = w
	}
	device := words["device"]
	if words["o"].Text == "bind" && path.IsAbs(device.Text) && get(v, "driver") == nil ||
		words["o"].Text == "bind" && path.IsAbs(device.Text) && get(v, "driver").Value == "local" {
		m.Host, m.Volume = members.Word{Text: path.Clean(device.Text), At: device.At}, ""
	}
	return nil
}
