package shell

import (
	"path"
	"slices"
	"strings"

	"github.com/etcd-backupd/backupd/internal/members"
)

// dispatch runs a command: a builtin, a function, a program.
func dispatch(s *shell, st *state, src source, c call) {
	if s.over(st, c.at) {
		return
	}
	name := c.words[0].Text
	if f, ok := st.funcs[name]; ok {
		runFunction(s, st, f, c)
		return
	}
	if runBuiltin(s, st, src, name, c) {
		return
	}
	runProgram(s, st, c)
}

// runFunction runs the body of one.
func runFunction(s *shell, st *state, f function, c call) {
	if c.err == nil {
		c.err = f.err
	}
	if f.err != nil {
		st.all = f.err
		s.record(st, c)
		return
	}
	if s.depth++; s.depth > maxDepth {
		s.over(st, c.at)
		return
	}
	args, why, within := st.args, st.argsErr, st.within
	st.within = true
	st.args, st.argsErr = append([]members.Word{{At: c.at}}, c.words[1:]...), nil
	if c.err != nil {
		st.args, st.argsErr = nil, c.err
	}
	if len(args) > 0 {
		st.args = append([]members.Word{args[0]}, c.words[1:]...)
	}
	s.stmt(st, f.src, f.body)
	st.args, st.argsErr, st.within = args, why, within
	if st.returned {
		st.ended, st.returned = false, false
	}
	s.depth--
}

// runBuiltin runs a builtin of the shell, and reports whether it is one.
func runBuiltin(s *shell, st *state, src source, name string, c call) bool {
	args := c.words[1:]
	unknown := c.at.Errorf("%s is not understood", join(c.words))
	switch name {
	case ":", "true", "false", "[", "test", "trap", "wait", "umask", "ulimit", "break", "continue", "hash", "jobs":
	case "echo", "printf":
		if len(args) > 0 && args[0].Text == "-v" {
			st.all = unknown
		}
	case "exit":
		st.ended = true
	case "return":
		if !st.within { // bash goes on, sh ends
			st.all = unknown
			break
		}
		st.ended, st.returned = true, true
	case "cd":
		changeDir(s, st, c)
	case "pushd", "popd":
		st.dir, st.dirErr = members.Word{}, unknown
	case "set":
		setOptions(s, st, c)
	case "shift":
		n := 1
		if len(args) == 1 {
			n = atoi(args[0].Text)
		}
		if c.err != nil || st.args == nil || n < 0 || len(args) > 1 || n > len(st.args)-1 {
			st.args, st.argsErr = nil, unknown
			break
		}
		st.args = append(slices.Clone(st.args[:1]), st.args[1+n:]...)
	case "unset":
		for _, a := range args {
			switch {
			case c.err != nil || a.Text == "-f":
				st.all = unknown
			case a.Text != "-v":
				st.vars[a.Text] = value{}
				delete(st.funcs, a.Text)
			}
		}
	case "read":
		for _, a := range args {
			if old := st.vars[a.Text]; !strings.HasPrefix(a.Text, "-") {
				st.vars[a.Text] = value{err: unknown, exported: old.exported}
			}
		}
		if c.err != nil || slices.ContainsFunc(args, func(a members.Word) bool { return a.Text == "-a" }) {
			st.all = unknown
		}
	case "export", "readonly", "local", "declare", "typeset": // behind command, builtin or a variable
		st.all = unknown
	case "eval":
		runEval(s, st, src, c)
	case "getopts", "mapfile", "readarray", "alias", "unalias", "shopt", "enable", "let", "coproc":
		if name != "shopt" || c.err != nil || slices.ContainsFunc(args, func(a members.Word) bool {
			return strings.Contains(a.Text, "alias") || strings.Contains(a.Text, "glob")
		}) {
			st.all = unknown
		}
	case ".", "source":
		runSource(s, st, src, c)
	case "exec":
		for len(c.words) > 2 && (c.words[1].Text == "-a" || c.words[1].Text == "-c" || c.words[1].Text == "-l") {
			if c.words[1].Text != "-l" {
				c.err = unknown
			}
			c.words = slices.Delete(slices.Clone(c.words), 1, 2)
		}
		if len(c.words) == 1 { // exec >log
			break
		}
		c.words, c.exec = c.words[1:], st.replaced
		runProgram(s, st, c)
		st.ended = true
	case "command", "builtin":
		if len(args) > 0 && !strings.HasPrefix(args[0].Text, "-") {
			c.words = args
			if !runBuiltin(s, st, src, args[0].Text, c) {
				runProgram(s, st, c)
			}
		}
	default:
		return false
	}
	return true
}

// join is a command as it is told to people. What follows the program may be a secret.
func join(words []members.Word) string {
	name := brief(words[0].Text)
	if len(words) > 1 && !strings.HasSuffix(name, "…") {
		name += " …"
	}
	return name
}

func changeDir(s *shell, st *state, c call) {
	args := c.words[1:]
	for len(args) > 1 && slices.Contains([]string{"--", "-L", "-P"}, args[0].Text) {
		args = args[1:]
	}
	switch {
	case c.err != nil:
		st.dir, st.dirErr = members.Word{}, c.err
	case len(args) != 1 || args[0].Text == "-" || args[0].Text == "":
		st.dir, st.dirErr = members.Word{}, c.at.Errorf("%s: where it leads cannot be known from the text", join(c.words))
	default:
		st.chdir(args[0])
	}
}

func setOptions(s *shell, st *state, c call) {
	unknown := c.at.Errorf("%s is not understood", join(c.words))
	for i := 1; i < len(c.words); i++ {
		w := c.words[i].Text
		switch {
		case c.err != nil:
			st.all = c.err
			return
		case w == "--":
			st.args = append([]members.Word{first(st.args, c.at)}, c.words[i+1:]...)
			st.argsErr = nil
			return
		case w == "-o" || w == "+o":
			if i++; i < len(c.words) {
				switch c.words[i].Text {
				case "allexport":
					st.export = w == "-o"
				case "noglob", "posix", "noexec":
					st.all = unknown
				}
			}
		case strings.HasPrefix(w, "-") && len(w) > 1, strings.HasPrefix(w, "+") && len(w) > 1:
			if strings.Contains(w, "a") {
				st.export = w[0] == '-'
			}
			if strings.ContainsAny(w, "fknP") {
				st.all = unknown
			}
			if strings.HasSuffix(w, "o") { // -euo pipefail
				i++
			}
		default:
			st.args = append([]members.Word{first(st.args, c.at)}, c.words[i:]...)
			st.argsErr = nil
			return
		}
	}
}

func first(words []members.Word, at members.Position) members.Word {
	if len(words) == 0 {
		return members.Word{At: at}
	}
	return words[0]
}

// runEval runs text that was made of words.
func runEval(s *shell, st *state, src source, c call) {
	if c.err != nil {
		st.all = c.err
		s.record(st, c)
		return
	}
	var text []string
	for _, w := range c.words[1:] {
		text = append(text, w.Text)
	}
	runNested(s, st, func() error {
		return s.text(st, lines{at: c.at, flat: true}, strings.Join(text, " "), src.bash)
	}, c)
}

// runNested runs a text within another one.
func runNested(s *shell, st *state, run func() error, c call) {
	if s.depth++; s.depth > maxDepth {
		s.over(st, c.at)
		s.depth--
		return
	}
	if err := run(); err != nil {
		st.all = err
		s.record(st, call{words: c.words, at: c.at, err: err})
	}
	s.depth--
}

// runSource runs a file in this shell.
func runSource(s *shell, st *state, src source, c call) {
	why := c.err
	switch {
	case why != nil:
	case len(c.words) < 2:
		why = c.at.Errorf("%s: which file it is cannot be known", join(c.words))
	case !src.bash && c.words[0].Text == "source":
		why = c.at.Errorf("source %s: sh need not know source", c.words[1].Text)
	}
	var text string
	var at lines
	if why == nil {
		text, at, why = s.read(st, c.words[1].Text, c.at)
	}
	if why != nil {
		st.all, c.err = why, why
		s.record(st, c)
		return
	}
	within := st.within
	st.within = true
	runNested(s, st, func() error { return s.text(st, at, text, src.bash) }, c)
	st.within = within
	if st.returned {
		st.ended, st.returned = false, false
	}
}

// read reads a script that is run or sourced.
func (s *shell) read(st *state, name string, at members.Position) (string, lines, error) {
	name = st.file(name)
	if f, ok := s.files[name]; ok {
		f.used = true
		return f.text.Text, lines{at: f.text.At, lines: f.lines}, f.err
	}
	if !path.IsAbs(name) {
		return "", lines{}, at.Errorf("%s: the folder that it is in is not known", name)
	}
	if s.o.ReadFile == nil {
		return "", lines{}, at.Errorf("%s is not read", name)
	}
	raw, err := s.o.ReadFile(name)
	if err != nil {
		return "", lines{}, at.Errorf("%v", err)
	}
	return string(raw), lines{at: members.Position{File: name, Line: 1}}, nil
}

// writeTee writes its input into files.
func writeTee(s *shell, st *state, c call) {
	for _, w := range c.words[1:] {
		if strings.HasPrefix(w.Text, "-") {
			continue
		}
		f := &file{path: st.file(w.Text), err: c.at.Errorf("what %s is after this line cannot be known", w.Text)}
		appends := slices.ContainsFunc(c.words, func(w members.Word) bool {
			return w.Text == "-a" || w.Text == "--append"
		})
		if c.stdin != nil && c.err == nil && st.cond == nil && !appends {
			f.text, f.lines, f.err = *c.stdin, c.lines, c.inErr
		}
		s.files[f.path] = f
	}
}

// record is what a program gets.
func (s *shell) record(st *state, c call) {
	env, err := st.environ()
	out := Command{
		Words: c.words, Env: env, Dir: st.dir, User: st.user, Group: st.group, Exec: c.exec, Notes: c.notes,
	}
	if st.dir.Text == "" && st.dirErr != nil {
		out.Notes = append(out.Notes, members.Note{At: c.at,
			Text: "the working directory is not known: " + st.dirErr.Error()})
	}
	for _, why := range []error{c.err, err, st.all, st.cond} {
		if out.Err == nil {
			out.Err = why
		}
	}
	s.commands = append(s.commands, out)
	if len(s.commands) >= maxCommands {
		s.steps = maxCommands
	}
}
