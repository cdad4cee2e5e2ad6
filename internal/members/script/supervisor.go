package script

import (
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/kballard/go-shellquote"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/members"
	"github.com/etcd-backupd/backupd/internal/members/shell"
)

// section is one of supervisord's configuration.
type section struct {
	name    string
	at      members.Position
	options map[string]option
}

// option is one value. Its text may have several lines; the first one may be empty.
type option struct {
	members.Word
	doubt error // why it may be read in another way
}

var header = regexp.MustCompile(`^\[([^\]]+)\]`)

// isSupervisor reports whether a file has programs of supervisord.
func isSupervisor(raw []byte) bool {
	for _, line := range strings.Split(string(raw), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || line[0] == ';' || line[0] == '#' {
			continue
		}
		return header.MatchString(line) && // the first line is a section
			(strings.Contains(string(raw), "[program:") || strings.Contains(string(raw), "\n[include]"))
	}
	return false
}

// sections reads the file as supervisord does: by Python's parser, with its continuation
// lines, and comments behind a blank.
func sections(text members.Word) ([]*section, error) {
	var out []*section
	byName := map[string]*section{}
	var current *section
	var key string
	indent := 0
	for i, line := range strings.Split(text.Text, "\n") {
		at := text.At
		at.Line += i
		line = strings.TrimRight(line, " \t\r")
		trimmed := strings.TrimLeft(line, " \t")
		if trimmed != "" && (trimmed[0] == ';' || trimmed[0] == '#') {
			continue
		}
		value, doubt := uncomment(trimmed, at)
		depth := len(line) - len(trimmed)
		if value == "" {
			continue
		}
		if current != nil && key != "" && depth > indent {
			o := current.options[key]
			o.Text += strings.Repeat("\n", at.Line-o.At.Line-strings.Count(o.Text, "\n")) + value
			if o.doubt == nil {
				o.doubt = doubt
			}
			current.options[key] = o
			continue
		}
		indent, key = depth, ""
		if m := header.FindStringSubmatch(value); m != nil {
			if current = byName[m[1]]; current == nil {
				current = &section{name: m[1], at: at, options: map[string]option{}}
				byName[m[1]] = current
				out = append(out, current)
			}
			continue
		}
		j := strings.IndexAny(value, "=:")
		if current == nil || j <= 0 {
			return nil, at.Errorf("this line is not understood as supervisord's configuration")
		}
		key = strings.ToLower(strings.TrimSpace(value[:j]))
		current.options[key] = option{members.Word{Text: strings.TrimSpace(value[j+1:]), At: at}, doubt}
	}
	return out, nil
}

// uncomment takes a comment from the end of a line. A # begins one in newer versions only.
func uncomment(line string, at members.Position) (string, error) {
	for i := 1; i < len(line); i++ {
		if line[i] == ';' && (line[i-1] == ' ' || line[i-1] == '\t') {
			line = line[:i]
			break
		}
	}
	for i := 1; i < len(line); i++ {
		if line[i] == '#' && (line[i-1] == ' ' || line[i-1] == '\t') {
			return strings.TrimSpace(line), at.Errorf("what follows # is a comment in some versions of supervisord only")
		}
	}
	return strings.TrimSpace(line), nil
}

// supervisor returns the starts of etcd by the programs of a file.
func supervisor(text members.Word, file string, o Options) ([]members.Start, error) {
	list, err := sections(text)
	if err != nil {
		return nil, err
	}
	var starts []members.Start
	var shared []members.Variable
	var all []program
	for _, s := range list {
		all = append(all, program{section: s, file: file, o: o})
		if s.name == "supervisord" {
			if shared, err = all[len(all)-1].environment(nil); err != nil {
				return nil, err
			}
		}
	}
	for _, p := range slices.Clone(all) {
		if p.section.name != "include" {
			continue
		}
		more, err := p.include()
		if err != nil {
			return nil, err
		}
		all = append(all, more...)
	}
	for _, p := range all {
		name, ok := strings.CutPrefix(p.section.name, "program:")
		if !ok {
			continue
		}
		p.name = strings.TrimSpace(name)
		more, err := p.starts(shared)
		if err != nil {
			return nil, err
		}
		starts = append(starts, more...)
	}
	if len(starts) == 0 {
		return nil, text.At.Errorf("no program of this file starts etcd")
	}
	return starts, nil
}

// program is one of supervisord's.
type program struct {
	*section
	name string
	file string
	o    Options
}

func (p program) starts(shared []members.Variable) ([]members.Start, error) {
	command, err := p.value("command")
	if err != nil || command.Text == "" {
		return nil, p.matters(err)
	}
	words, err := split(command)
	if err != nil || len(words) == 0 {
		return nil, p.matters(err)
	}
	env, err := p.environment(shared)
	if err != nil {
		return nil, p.matters(err)
	}
	dir, err := p.value("directory")
	if err != nil {
		return nil, p.matters(err)
	}
	if dir.Text != "" && !path.IsAbs(dir.Text) {
		return nil, dir.At.Errorf("directory=%s is relative to the folder in which supervisord was started", dir.Text)
	}
	if n, err := p.value("numprocs"); err != nil || n.Text != "" && n.Text != "1" {
		return nil, p.matters(n.At.Errorf("numprocs=%s: several processes of one program are not understood", n.Text))
	}
	commands, err := shell.Run(words, env, shell.Options{Hostname: p.o.Hostname, Dir: dir, ReadFile: p.o.ReadFile})
	if err != nil {
		return nil, p.matters(err)
	}
	starts, err := fromCommands(commands, members.Supervisord, p.o)
	if err != nil {
		return nil, err
	}
	if len(starts) == 0 {
		return nil, p.none(words, commands)
	}
	user, err := p.value("user")
	if err != nil {
		return nil, err
	}
	for i := range starts {
		starts[i].Unit, starts[i].Of = p.name, command.At
		if starts[i].User.Text == "" && user.Text != "" {
			starts[i].User = user
		}
		if starts[i].Means == members.Supervisord && p.outlived(commands) {
			starts[i].Outlives = true
			stop := "`supervisorctl stop " + shellquote.Join(p.name)
			starts[i].Notes = append(starts[i].Notes, members.Note{At: command.At, Text: stop +
				"` ends the shell only, for the script runs etcd without exec: etcd runs on, end it by its process id"})
		}
	}
	return starts, nil
}

// none says why a program that should start etcd does not, as far as can be seen.
func (p program) none(words []members.Word, commands []shell.Command) error {
	for _, c := range commands {
		if c.Err != nil && c.Hides() {
			return p.matters(c.Err)
		}
	}
	if !strings.Contains(p.name+words[0].Text, "etcd") {
		return nil
	}
	return backup.WithHint(words[0].At.Errorf("the program %s is named after etcd, and what %s does is not known here: "+
		"it cannot be read as a script", p.name, words[0].Text), "give that file with --from as well")
}

// matters drops an error of a program that has nothing to do with etcd.
func (p program) matters(err error) error {
	if err == nil || strings.Contains(p.name+p.options["command"].Text, "etcd") {
		return err
	}
	return nil
}

// outlived reports whether supervisorctl stop leaves etcd running.
func (p program) outlived(commands []shell.Command) bool {
	for _, key := range []string{"stopasgroup", "killasgroup"} {
		if slices.Contains([]string{"true", "1", "yes", "on"}, strings.ToLower(p.options[key].Text)) {
			return false
		}
	}
	return slices.ContainsFunc(commands, func(c shell.Command) bool { return c.IsEtcd() && !c.Exec })
}

// expansions are those of supervisord: %(name)s.
var expansions = regexp.MustCompile(`%(\(([A-Za-z0-9_]+)\)([-0-9.]*[sdi])|%|.|$)`)

// value is an option with its expansions replaced.
func (p program) value(key string) (members.Word, error) {
	o := p.options[key]
	if o.doubt != nil {
		return o.Word, o.doubt
	}
	var unknown string
	text := expansions.ReplaceAllStringFunc(o.Text, func(m string) string {
		parts := expansions.FindStringSubmatch(m)
		switch {
		case m == "%%":
			return "%"
		case parts[2] == "program_name" && parts[3] == "s":
			return p.name
		case parts[2] == "here" && parts[3] == "s" && path.IsAbs(p.file):
			return path.Dir(p.file)
		case parts[2] == "host_node_name" && parts[3] == "s" && p.o.Hostname != "":
			return p.o.Hostname
		case parts[2] == "process_num" && (parts[3] == "d" || parts[3] == "s"):
			return "0"
		}
		unknown = m
		return m
	})
	if unknown != "" {
		return o.Word, o.At.Errorf("%s=%s: the value of %s is not known here", key, o.Text, unknown)
	}
	return members.Word{Text: text, At: o.At}, nil
}

// split makes words of a command as Python's shlex does.
func split(command members.Word) (out []members.Word, err error) {
	text, line := command.Text, command.At.Line
	var word strings.Builder
	begun := false
	at := command.At
	begin := func() {
		if !begun {
			begun, at.Line = true, line
		}
	}
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == ' ' || c == '\t' || c == '\r' || c == '\n':
			if begun {
				out = append(out, members.Word{Text: word.String(), At: at})
				word.Reset()
				begun = false
			}
			if c == '\n' {
				line++
			}
		case c == '\\':
			if begin(); i+1 >= len(text) {
				return nil, at.Errorf("the command ends with a backslash")
			}
			if i++; text[i] == '\n' {
				line++
			}
			word.WriteByte(text[i])
		case c == '\'' || c == '"':
			begin()
			for i++; i < len(text) && text[i] != c; i++ {
				if c == '"' && text[i] == '\\' && i+1 < len(text) && (text[i+1] == '"' || text[i+1] == '\\') {
					i++
				}
				word.WriteByte(text[i])
			}
			if i >= len(text) {
				return nil, at.Errorf("a quote is not closed")
			}
		default:
			begin()
			word.WriteByte(c)
		}
	}
	if begun {
		out = append(out, members.Word{Text: word.String(), At: at})
	}
	return out, nil
}

// assignment is one KEY=value of environment=.
var assignment = regexp.MustCompile(`^\s*([A-Za-z0-9_/.+\-():]+)\s*=\s*("[^"]*"|'[^']*'|[A-Za-z0-9_/.+\-():]+)\s*(,|$)`)

// environment reads KEY="value",KEY2=value2.
func (p program) environment(env []members.Variable) ([]members.Variable, error) {
	env = slices.Clone(env)
	value, err := p.value("environment")
	if err != nil {
		return nil, err
	}
	rest, at := value.Text, value.At
	for strings.TrimSpace(rest) != "" {
		m := assignment.FindStringSubmatch(rest)
		if m == nil {
			return nil, at.Errorf("environment: what follows is not understood")
		}
		lead := len(m[0]) - len(strings.TrimLeft(m[0], " \t\n"))
		own := at
		own.Line += strings.Count(m[0][:lead], "\n")
		name := m[1]
		env = slices.DeleteFunc(env, func(v members.Variable) bool { return v.Name == name })
		env = append(env, members.Variable{Name: name, Value: members.Word{Text: strings.Trim(m[2], `'"`), At: own}})
		at.Line += strings.Count(m[0], "\n")
		rest = rest[len(m[0]):]
	}
	return env, nil
}
