package container

import (
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/compose-spec/compose-go/v2/template"
	"github.com/mattn/go-shellwords"
	"go.yaml.in/yaml/v4"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/members"
)

// IsCompose reports whether a file is a compose file.
func IsCompose(raw []byte) bool {
	root, err := parse(raw)
	if err != nil {
		return false
	}
	services := get(root, "services")
	if services == nil || services.Kind != yaml.MappingNode {
		return false
	}
	for _, p := range pairs(services) {
		if get(p.value, "image") != nil || get(p.value, "build") != nil || get(p.value, "command") != nil {
			return true
		}
	}
	return false
}

func parse(raw []byte) (*yaml.Node, error) {
	var doc yaml.Node
	if err := yaml.Unmarshal(raw, &doc); err != nil {
		return nil, err
	}
	if len(doc.Content) == 0 {
		return &doc, nil
	}
	return doc.Content[0], nil
}

// pair is one key of a mapping.
type pair struct {
	key   string
	at    *yaml.Node
	value *yaml.Node
}

// pairs are the keys of a mapping, with those that << takes from elsewhere.
func pairs(n *yaml.Node) (out []pair) { return merged(n, 0) }

func merged(n *yaml.Node, depth int) (out []pair) {
	if n = follow(n); n == nil || n.Kind != yaml.MappingNode || depth > 20 {
		return nil
	}
	add := func(p pair) {
		if !slices.ContainsFunc(out, func(o pair) bool { return o.key == p.key }) {
			out = append(out, p)
		}
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value != "<<" {
			add(pair{n.Content[i].Value, n.Content[i], follow(n.Content[i+1])})
		}
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value != "<<" {
			continue
		}
		from := []*yaml.Node{n.Content[i+1]}
		if f := follow(from[0]); f != nil && f.Kind == yaml.SequenceNode {
			from = f.Content
		}
		for _, f := range from {
			for _, p := range merged(f, depth+1) {
				add(p)
			}
		}
	}
	return out
}

// follow goes from an alias to what it names.
func follow(n *yaml.Node) *yaml.Node {
	for i := 0; n != nil && n.Kind == yaml.AliasNode && i < 20; i++ {
		n = n.Alias
	}
	return n
}

func get(n *yaml.Node, key string) *yaml.Node {
	for _, p := range pairs(n) {
		if p.key == key {
			return p.value
		}
	}
	return nil
}

// compose is one compose file.
type compose struct {
	file    string
	dir     string // relative paths begin there
	o       members.ReadOptions
	env     map[string]string // of .env
	volumes *yaml.Node
	// replaced are notes on the variables of the service that is being read.
	replaced []members.Note
}

// Compose returns the starts of etcd that a compose file makes.
func Compose(file string, raw []byte, o members.ReadOptions) ([]members.Start, error) {
	root, err := parse(raw)
	if err != nil {
		return nil, members.Position{File: file}.Errorf("%v", err)
	}
	c := &compose{file: file, o: o, volumes: get(root, "volumes")}
	if abs, err := filepath.Abs(file); err == nil {
		c.dir = filepath.Dir(abs)
	}
	if err := c.readDotEnv(); err != nil {
		return nil, err
	}
	var out []members.Start
	if in := get(root, "include"); in != nil {
		return nil, c.at(in).Errorf("include is not followed: give the file that it names")
	}
	var services []string
	for _, p := range pairs(get(root, "services")) {
		s, err := c.service(p)
		if err != nil {
			return nil, err
		}
		if s == nil {
			continue
		}
		if err := checkCopies(c, s, p.value); err != nil {
			return nil, err
		}
		out, services = append(out, *s), append(services, p.key)
	}
	if len(out) > 0 && Remote(c.env["DOCKER_HOST"]) {
		return nil, members.Position{File: path.Join(c.dir, ".env")}.Errorf(
			"DOCKER_HOST: the containers are those of another host")
	}
	return out, checkBeside(c, services)
}

func (c *compose) at(n *yaml.Node) members.Position {
	return members.Position{File: c.file, Line: n.Line}
}

// text is a value with its variables replaced.
func (c *compose) text(n *yaml.Node) (members.Word, error) {
	w := members.Word{At: c.at(n)}
	if n.Kind != yaml.ScalarNode {
		return w, w.At.Errorf("this is not understood: want a text")
	}
	if n.Tag == "!!null" {
		return w, nil
	}
	var unset []string
	length := 0
	text, err := template.SubstituteWithOptions(n.Value, func(name string) (string, bool) {
		v, ok := c.env[name]
		if !ok {
			unset = append(unset, name)
		}
		if length += len(v); length > members.MaxValueBytes {
			return "", true
		}
		c.replaced = append(c.replaced, members.Note{At: w.At, Text: "$" + name + " is taken from .env or from its " +
			"default: one in the environment of whoever runs compose would be stronger"})
		return v, ok || plain(n.Value, name) // the library writes to the log about one that is not there
	}, template.WithoutLogging)
	if err != nil {
		return w, w.At.Errorf("what follows a $ is not understood")
	}
	if length > members.MaxValueBytes {
		return w, w.At.Errorf("the text gets too long to be followed")
	}
	for _, name := range unset {
		if plain(n.Value, name) {
			return w, w.At.Errorf("${%s} is not in %s: its value is that of whoever runs compose", name,
				path.Join(c.dir, ".env"))
		}
	}
	w.Text = text
	return w, nil
}

// plain reports whether a text has a variable without a default.
func plain(text, name string) bool {
	vars := template.ExtractVariables(map[string]any{"x": text}, template.DefaultPattern)
	v, ok := vars[name]
	return !ok || v.DefaultValue == "" && v.PresenceValue == "" && !strings.Contains(text, "${"+name+":-") &&
		!strings.Contains(text, "${"+name+"-") || strings.Contains(text, "${"+name+"}") || bare(text, name)
}

// bare reports whether $NAME is in a text.
func bare(text, name string) bool {
	for rest := text; ; {
		i := strings.Index(rest, "$"+name)
		if i < 0 {
			return false
		}
		rest = rest[i+1+len(name):]
		if rest == "" || !isName(rest[0]) {
			return true
		}
	}
}

func isName(b byte) bool {
	return b == '_' || b >= '0' && b <= '9' || b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z'
}

// service is one container. Faults count only if it is etcd's.
func (c *compose) service(p pair) (*members.Start, error) {
	s := settings{name: p.key, service: p.key, at: c.at(p.at), image: members.Word{Text: p.key, At: c.at(p.at)}}
	c.replaced = nil
	var fault error
	for _, key := range pairs(p.value) {
		if err := c.key(&s, key); err != nil && fault == nil {
			fault = err
		}
	}
	if env := get(p.value, "environment"); env != nil { // stronger than env_file, wherever it is
		if err := c.environment(&s, env); err != nil && fault == nil {
			fault = err
		}
	}
	start, err := s.start(c.o)
	if fault != nil && (start != nil || err != nil || c.mayBeEtcd(p.value)) {
		return nil, fault
	}
	if start != nil {
		start.Notes = append(start.Notes, c.replaced...)
	}
	return start, err
}

// mayBeEtcd reports whether a service has anything to do with etcd.
func (c *compose) mayBeEtcd(n *yaml.Node) bool {
	image := get(n, "image")
	if image != nil && strings.Contains(image.Value, "etcd") {
		return true
	}
	for _, key := range []string{"command", "entrypoint"} {
		v := get(n, key)
		if v == nil {
			continue
		}
		for _, w := range append([]*yaml.Node{v}, v.Content...) {
			if f := follow(w); f != nil && strings.Contains(f.Value, "etcd") {
				return true
			}
		}
	}
	return false
}

// key takes one key of a service.
func (c *compose) key(s *settings, p pair) (err error) {
	switch p.key {
	case "image":
		s.image, err = c.text(p.value)
	case "build":
		s.of, err = c.build(p.value)
	case "container_name":
		var w members.Word
		if w, err = c.text(p.value); err == nil {
			s.name, s.service = w.Text, ""
		}
	case "entrypoint":
		if p.value.Tag == "!!null" {
			return nil
		}
		s.noEntry = true
		s.entrypoint, err = c.words(p.value)
	case "command":
		s.args, err = c.words(p.value)
	case "env_file":
		err = c.envFiles(s, p.value)
	case "working_dir":
		s.dir, err = c.text(p.value)
	case "user":
		s.user, err = c.text(p.value)
	case "hostname":
		s.hostname, err = c.text(p.value)
	case "network_mode":
		var w members.Word
		w, err = c.text(p.value)
		s.hostNet = w.Text == "host"
	case "volumes":
		err = c.mounts(s, p.value)
	case "tmpfs":
		for _, n := range list(p.value) {
			w, e := c.text(n)
			if e != nil {
				return e
			}
			inside, _, _ := strings.Cut(w.Text, ":")
			s.mounts = append(s.mounts, members.Mount{Inside: members.Word{Text: inside, At: w.At}, Volume: "tmpfs"})
		}
	case "extends", "volumes_from":
		err = c.at(p.at).Errorf("%s is not followed", p.key)
	}
	return err
}

// list is a sequence, or one value as a sequence.
func list(n *yaml.Node) (out []*yaml.Node) {
	if n.Kind != yaml.SequenceNode {
		return []*yaml.Node{n}
	}
	for _, e := range n.Content {
		out = append(out, follow(e))
	}
	return out
}

// words are a command as a list, or as one text.
func (c *compose) words(n *yaml.Node) (out []members.Word, err error) {
	if n.Kind == yaml.SequenceNode {
		for _, e := range list(n) {
			w, err := c.text(e)
			if err != nil {
				return nil, err
			}
			out = append(out, w)
		}
		return out, nil
	}
	text, err := c.text(n)
	if err != nil {
		return nil, err
	}
	words, err := shellwords.Parse(text.Text)
	if err != nil {
		return nil, text.At.Errorf("the words of this text are not understood: %v", err)
	}
	for _, w := range words {
		out = append(out, members.Word{Text: w, At: text.At})
	}
	return out, nil
}

// build follows the Dockerfile that an image is made of.
func (c *compose) build(n *yaml.Node) (*Image, error) {
	context, file := n, "Dockerfile"
	if n.Kind == yaml.MappingNode {
		if context = get(n, "context"); context == nil {
			return nil, c.at(n).Errorf("build without a context is not understood")
		}
		if in := get(n, "dockerfile_inline"); in != nil {
			return Dockerfile(c.file, []byte(in.Value))
		}
		if f := get(n, "dockerfile"); f != nil {
			w, err := c.text(f)
			if err != nil {
				return nil, err
			}
			file = w.Text
		}
		if t := get(n, "target"); t != nil {
			return nil, c.at(t).Errorf("build with a target is not understood")
		}
	}
	dir, err := c.text(context)
	if err != nil {
		return nil, err
	}
	name := file
	if !path.IsAbs(name) {
		name = path.Join(c.resolve(dir.Text), file)
	}
	raw, err := readFile(c.o, name, dir.At)
	if err != nil {
		return nil, backup.WithHint(err, "the image is built from it")
	}
	return Dockerfile(name, raw)
}

func (c *compose) resolve(name string) string {
	if path.IsAbs(name) {
		return path.Clean(name)
	}
	return path.Join(c.dir, name)
}
