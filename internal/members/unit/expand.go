package unit

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/etcd-backupd/backupd/internal/members"
)

// environment is what systemd gives to a process, as far as files say it.
type environment struct {
	vars []members.Variable
	// unknown are variables whose value cannot be known, and why.
	unknown map[string]error
}

func (e *environment) set(v members.Variable) {
	delete(e.unknown, v.Name)
	e.vars = set(e.vars, v)
}

func (e *environment) setUnknown(name string, err error) {
	e.drop(name)
	if e.unknown == nil {
		e.unknown = map[string]error{}
	}
	e.unknown[name] = err
}

func (e *environment) drop(name string) {
	delete(e.unknown, name)
	e.vars = slices.DeleteFunc(e.vars, func(v members.Variable) bool { return v.Name == name })
}

func (e *environment) get(name string) (members.Variable, bool) {
	for _, v := range e.vars {
		if v.Name == name {
			return v, true
		}
	}
	return members.Variable{}, false
}

func (e *environment) known() []members.Variable { return slices.Clone(e.vars) }

// of returns the environment of a command in the service, and why it cannot be known.
func (e *environment) of(vars []members.Variable) ([]members.Variable, error) {
	for name, err := range e.unknown {
		overridden := slices.ContainsFunc(vars, func(v members.Variable) bool { return v.Name == name })
		if strings.HasPrefix(name, "ETCD_") && !overridden {
			return nil, err
		}
	}
	return vars, nil
}

// decideEnvironment takes Environment=, then the files, each over what was there.
func (u *unit) decideEnvironment() error {
	for _, a := range u.passed {
		for name := range strings.FieldsSeq(a.value.s) {
			u.env.setUnknown(name, a.at.Errorf("%s is passed on from systemd's own environment", name))
		}
	}
	for _, a := range u.settings {
		list, err := strictWords(a.value)
		if err != nil {
			return err
		}
		for _, w := range list {
			u.setVariable(w)
		}
	}
	for _, a := range u.files {
		if err := u.readVariables(a); err != nil {
			return err
		}
	}
	for _, a := range u.unset {
		list, err := strictWords(a.value)
		if err != nil {
			return err
		}
		for _, w := range list {
			name, value, found := strings.Cut(w.s, "=")
			if v, ok := u.env.get(name); !found || ok && v.Value.Text == value {
				u.env.drop(name)
			}
		}
	}
	return nil
}

// strictWords refuses an escape that is not known: only ExecStart= keeps it as it is,
// elsewhere it voids the line.
func strictWords(t text) ([]text, error) {
	list, err := words(t)
	for _, w := range list {
		if w.odd {
			name, _, _ := strings.Cut(w.s, "=")
			if !isVariable(name) {
				name = "a word"
			}
			return nil, w.at().Errorf("%s has an escape in it that systemd does not know: it ignores the line", name)
		}
	}
	return list, err
}

func (u *unit) setVariable(w text) {
	s, err := u.expand(w)
	if err != nil {
		name, _, _ := strings.Cut(w.s, "=")
		u.env.setUnknown(name, err)
		return
	}
	name, value, found := strings.Cut(s, "=")
	if !found || !isVariable(name) {
		u.Notes = append(u.Notes, members.Note{At: w.at(), Text: "Environment= has a word that is no assignment: " +
			"systemd ignores it"})
		return
	}
	u.env.set(members.Variable{Name: name, Value: members.Word{Text: value, At: w.at()}})
}

// readVariables reads one EnvironmentFile=.
func (u *unit) readVariables(a assignment) error {
	path, err := u.expand(a.value)
	if err != nil {
		return err
	}
	path, optional := strings.CutPrefix(path, "-")
	if !filepath.IsAbs(path) {
		return a.at.Errorf("EnvironmentFile=%s is not an absolute path", path)
	}
	if strings.ContainsAny(path, "*?[") {
		return a.at.Errorf("EnvironmentFile=%s is a pattern, which is not followed here", path)
	}
	named := path
	path, raw, err := readOwn(u, named, a.at)
	if errors.Is(err, fs.ErrNotExist) && optional {
		u.Absent = append(u.Absent, members.Word{Text: named, At: a.at})
		u.Notes = append(u.Notes, members.Note{At: a.at, Text: fmt.Sprintf(
			"%s is not there: if it comes before etcd is started, what it sets is not known here", named)})
		return nil
	}
	if errors.As(err, new(*members.FileError)) {
		return err
	}
	if err != nil {
		return a.at.Errorf("read EnvironmentFile=: %v", err)
	}
	list, notes, err := variables(path, raw)
	if err != nil {
		return err
	}
	text := "the environment file that was read is " + path
	if path != named {
		text += ", for " + named
	}
	u.Notes = append(append(u.Notes, members.Note{At: a.at, Text: text}), notes...)
	for _, v := range list {
		u.env.set(v)
	}
	return nil
}

// command returns the words of ExecStart= as the process gets them.
func (u *unit) command(a assignment) ([]members.Word, error) {
	value := a.value
	plain, argv0 := false, false
	for value.s != "" && strings.IndexByte("-@:+!|", value.s[0]) >= 0 {
		plain = plain || value.s[0] == ':'
		argv0 = argv0 || value.s[0] == '@'
		value = value.sub(1, len(value.s))
	}
	list, err := words(value)
	if err != nil {
		return nil, err
	}
	if argv0 && len(list) > 1 {
		list = slices.Delete(list, 1, 2)
	}
	var out []members.Word
	for i, w := range list {
		if w.ends {
			return nil, w.at().Errorf("ExecStart= has a second command")
		}
		s, err := u.expand(w)
		if err != nil {
			return nil, err
		}
		word := members.Word{Text: s, At: w.at()}
		if i == 0 && strings.Contains(s, "/") && !filepath.IsAbs(s) {
			return nil, word.At.Errorf("the program %s is neither a name nor an absolute path", s)
		}
		if i == 0 || plain {
			out = append(out, word)
			continue
		}
		if out, err = u.replaceVariables(out, word); err != nil {
			return nil, err
		}
	}
	if len(out) == 0 {
		return nil, a.at.Errorf("ExecStart= has no command")
	}
	return out, nil
}

// replaceVariables adds a word after the variables in it are replaced: $X, if it is all of the
// word, by the words in it, ${X} anywhere by its text. $$ is a dollar sign.
func (u *unit) replaceVariables(out []members.Word, w members.Word) ([]members.Word, error) {
	if name, ok := strings.CutPrefix(w.Text, "$"); ok && isVariable(name) {
		v, ok := u.env.get(name)
		if err := unsure(u, name); err != nil {
			return nil, err
		}
		if !ok && slices.Contains(given, name) {
			return nil, w.At.Errorf("$%s is not known: systemd sets it", name)
		}
		if !ok {
			u.Notes = append(u.Notes, members.Note{At: w.At, Text: "nothing sets $" + name + ": it stands for no words"})
			return out, nil
		}
		parts, err := split(v.Value)
		return append(out, parts...), err
	}
	if len(w.Text) > 1 && w.Text[0] == '$' && w.Text[1] != '{' && w.Text[1] != '$' && w.Text[1] != '(' {
		return nil, w.At.Errorf("a word begins with a $ and is no variable: systemd leaves it out")
	}
	var s strings.Builder
	for rest := w.Text; rest != ""; {
		before, after, found := strings.Cut(rest, "$")
		s.WriteString(before)
		switch {
		case !found:
			rest = ""
		case strings.HasPrefix(after, "$"):
			s.WriteByte('$')
			rest = after[1:]
		case strings.HasPrefix(after, "{"):
			value, tail, err := u.braces(after[1:], w)
			if err != nil {
				return nil, err
			}
			if s.WriteString(value); s.Len() > members.MaxValueBytes {
				return nil, w.At.Errorf("the word gets too long to be followed")
			}
			rest = tail
		default:
			s.WriteByte('$')
			rest = after
		}
	}
	return append(out, members.Word{Text: s.String(), At: w.At}), nil
}

// unsure says why the value of a variable cannot be known.
func unsure(u *unit, name string) error {
	if err := u.env.unknown[name]; err != nil || len(u.Absent) == 0 {
		return err
	}
	return u.Absent[0].At.Errorf("%s is not there, and may come before etcd is started: it may set $%s", u.Absent[0].Text,
		name)
}

// given are variables that systemd itself may set.
var given = []string{
	"HOME", "USER", "LOGNAME", "SHELL", "PATH", "LANG", "INVOCATION_ID", "NOTIFY_SOCKET", "JOURNAL_STREAM", "MAINPID",
	"MANAGERPID", "RUNTIME_DIRECTORY", "STATE_DIRECTORY", "CACHE_DIRECTORY", "LOGS_DIRECTORY", "CONFIGURATION_DIRECTORY",
	"CREDENTIALS_DIRECTORY", "LISTEN_FDS", "LISTEN_PID", "WATCHDOG_USEC", "WATCHDOG_PID", "TERM",
}

// braces replaces what follows ${.
func (u *unit) braces(s string, w members.Word) (value, rest string, err error) {
	name, rest, found := strings.Cut(s, "}")
	switch {
	case !found:
		return "", "", w.At.Errorf("${%s has no end", s)
	case isVariable(name):
	case strings.Contains(name, ":") && isVariable(name[:strings.IndexByte(name, ':')]):
		return "${" + name + "}", rest, nil // which systemd leaves to a shell
	default:
		return "", "", w.At.Errorf("${%s} is not the name of a variable", name)
	}
	if err := unsure(u, name); err != nil {
		return "", "", err
	}
	v, ok := u.env.get(name)
	if !ok {
		return "", "", w.At.Errorf("nothing sets ${%s}", name)
	}
	return v.Value.Text, rest, nil
}

// split splits the value of a variable into words: quotes count, and a backslash takes away
// the meaning of what follows.
func split(v members.Word) ([]members.Word, error) {
	var out []members.Word
	var word []byte
	var quote byte
	begun := false
	for i := 0; i < len(v.Text); i++ {
		c := v.Text[i]
		switch {
		case c == '\\' && i+1 < len(v.Text):
			i++
			word, begun = append(word, v.Text[i]), true
		case c == quote:
			quote = 0
		case quote != 0:
			word = append(word, c)
		case c == '"' || c == '\'':
			quote, begun = c, true
		case strings.IndexByte(whitespace, c) >= 0:
			if begun {
				out = append(out, members.Word{Text: string(word), At: v.At})
			}
			word, begun = nil, false
		default:
			word, begun = append(word, c), true
		}
	}
	if quote != 0 {
		return nil, v.At.Errorf("a quote has no end")
	}
	if begun {
		out = append(out, members.Word{Text: string(word), At: v.At})
	}
	return out, nil
}
