package container

import (
	"encoding/json"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/mattn/go-shellwords"

	"github.com/compose-spec/compose-go/v2/template"

	"github.com/etcd-backupd/backupd/internal/members"
)

// instruction is one of a Dockerfile, with its continuations.
type instruction struct {
	name, text string
	at         members.Position
}

// heredoc is the beginning of a text within an instruction.
var heredoc = regexp.MustCompile(`<<-?\s*["']?([A-Za-z0-9_]+)["']?`)

// instructions reads a Dockerfile.
func instructions(file string, raw []byte) ([]instruction, error) {
	var out []instruction
	lines := strings.Split(string(raw), "\n")
	for i := 0; i < len(lines); i++ {
		line := strings.TrimSpace(lines[i])
		at := members.Position{File: file, Line: i + 1}
		if strings.HasPrefix(line, "#") && len(out) == 0 && strings.Contains(strings.ToLower(line), "escape=`") {
			return nil, at.Errorf("another escape character is not understood")
		}
		if line == "" || line[0] == '#' {
			continue
		}
		text := line
		for strings.HasSuffix(text, `\`) && i+1 < len(lines) {
			i++
			next := strings.TrimSpace(lines[i])
			if next == "" || next[0] == '#' {
				continue
			}
			text = strings.TrimSuffix(text, `\`) + next
		}
		name, rest, _ := strings.Cut(strings.ReplaceAll(text, "\t", " "), " ")
		name = strings.ToUpper(name)
		if slices.Contains([]string{"RUN", "COPY", "ADD"}, name) {
			for _, end := range heredoc.FindAllStringSubmatch(rest, -1) {
				for i++; i < len(lines) && strings.TrimSpace(lines[i]) != end[1]; i++ {
				}
			}
		}
		out = append(out, instruction{name, strings.TrimSpace(rest), at})
	}
	return out, nil
}

// IsDockerfile reports whether a file is a Dockerfile.
func IsDockerfile(raw []byte) bool {
	list, err := instructions("", raw)
	if err != nil {
		return false
	}
	for _, in := range list {
		switch in.name {
		case "ARG":
		case "FROM":
			return in.text != ""
		default:
			return false
		}
	}
	return false
}

// stage is an image that a Dockerfile makes on its way.
type stage struct {
	Image
	name  string
	shell []string
	args  map[string]string
}

// Dockerfile reads what the image of a Dockerfile gives to its containers.
func Dockerfile(file string, raw []byte) (*Image, error) {
	list, err := instructions(file, raw)
	if err != nil {
		return nil, err
	}
	var stages []stage
	for _, in := range list {
		if in.name == "FROM" {
			stages = append(stages, from(in, stages))
			continue
		}
		if len(stages) == 0 {
			continue // ARG
		}
		if err := stages[len(stages)-1].take(in); err != nil {
			return nil, err
		}
	}
	if len(stages) == 0 {
		return nil, members.Position{File: file}.Errorf("it has no FROM")
	}
	return &stages[len(stages)-1].Image, nil
}

// from begins a stage: another one goes on, or an image that is not known.
func from(in instruction, stages []stage) stage {
	words := slices.DeleteFunc(strings.Fields(in.text), func(w string) bool { return strings.HasPrefix(w, "--") })
	next := stage{Image: Image{At: in.at, BaseUnknown: true}, shell: []string{"/bin/sh", "-c"}, args: map[string]string{}}
	if len(words) == 0 {
		return next
	}
	next.BaseUnknown = words[0] != "scratch"
	for _, s := range stages {
		if strings.EqualFold(s.name, words[0]) {
			next = s
			next.args, next.At = map[string]string{}, in.at
		}
	}
	next.name = ""
	if len(words) == 3 && strings.EqualFold(words[1], "as") {
		next.name = words[2]
	}
	return next
}

// take follows one instruction.
func (s *stage) take(in instruction) (err error) {
	switch in.name {
	case "ENTRYPOINT":
		s.Entrypoint, s.Shell, err = s.command(in)
		s.Cmd = nil
	case "CMD":
		s.Cmd, _, err = s.command(in)
	case "SHELL":
		if json.Unmarshal([]byte(in.text), &s.shell) != nil || len(s.shell) == 0 {
			err = in.at.Errorf("SHELL %s is not understood", in.text)
		}
	case "ENV":
		err = s.variables(in)
	case "ARG": // its value can be given when the image is built
		name, _, _ := strings.Cut(in.text, "=")
		s.args[name] = name
	case "WORKDIR":
		var dir string
		if dir, err = s.expand(in, in.text); err == nil && !path.IsAbs(dir) {
			base := s.Dir.Text
			if base == "" {
				if s.BaseUnknown {
					return in.at.Errorf("WORKDIR %s is relative to one of the base image, which is not known", dir)
				}
				base = "/"
			}
			dir = path.Join(base, dir)
		}
		s.Dir = members.Word{Text: dir, At: in.at}
	case "USER":
		s.User = members.Word{At: in.at}
		s.User.Text, err = s.expand(in, in.text)
	}
	return err
}

// command is ["word", ...], or text for a shell.
func (s *stage) command(in instruction) (words []members.Word, text bool, err error) {
	var list []string
	if strings.HasPrefix(in.text, "[") && json.Unmarshal([]byte(in.text), &list) == nil {
		text = false
	} else {
		list, text = append(slices.Clone(s.shell), in.text), true
	}
	for _, w := range list {
		words = append(words, members.Word{Text: w, At: in.at})
	}
	return words, text, nil
}

// variables are NAME=value ..., or NAME value.
func (s *stage) variables(in instruction) error {
	name, value, ok := strings.Cut(in.text, " ")
	if ok && !strings.Contains(name, "=") {
		value, err := s.expand(in, strings.TrimSpace(value))
		s.Env = set(s.Env, members.Variable{Name: name, Value: members.Word{Text: value, At: in.at}})
		return err
	}
	words, err := shellwords.Parse(in.text)
	if err != nil {
		return in.at.Errorf("ENV %s is not understood: %v", in.text, err)
	}
	before := *s
	for _, w := range words {
		name, value, ok := strings.Cut(w, "=")
		if !ok {
			return in.at.Errorf("ENV %s is not understood", in.text)
		}
		if strings.ContainsAny(in.text, `'\`) && strings.Contains(in.text, "$") {
			return in.at.Errorf("ENV %s is not understood: quotes and variables", in.text)
		}
		if value, err = before.expand(in, value); err != nil {
			return err
		}
		s.Env = set(s.Env, members.Variable{Name: name, Value: members.Word{Text: value, At: in.at}})
	}
	return nil
}

// expand replaces the variables of ENV.
func (s *stage) expand(in instruction, text string) (string, error) {
	var unknown string
	length := 0
	out, err := template.Substitute(text, func(name string) (string, bool) {
		for _, v := range s.Env {
			if v.Name != name {
				continue
			}
			if length += len(v.Value.Text); length > members.MaxValueBytes {
				return "", true
			}
			return v.Value.Text, true
		}
		if s.args[name] != "" || s.BaseUnknown {
			unknown = name
		}
		return "", true
	})
	if length > members.MaxValueBytes {
		return "", in.at.Errorf("the text gets too long to be followed")
	}
	if err == nil && unknown != "" {
		err = in.at.Errorf("$%s can be given when the image is built, or is the base image's", unknown)
	} else if err != nil {
		err = in.at.Errorf("%s is not understood: %v", text, err)
	}
	return out, err
}

// start is what a container of the image starts, if nobody says more.
func (i *Image) start(o members.ReadOptions) (*members.Start, error) {
	c := settings{at: i.At, of: i, image: members.Word{Text: "of this file", At: i.At}}
	s, err := c.start(o)
	if s != nil {
		s.Notes = append(s.Notes, members.Note{At: i.At, Text: "all paths are those of the container: a compose file or " +
			"the docker run line says where they are on this host"})
	}
	return s, err
}
