package shell

import (
	"path"
	"slices"
	"strings"

	"github.com/etcd-backupd/backupd/internal/members"
)

// runProgram runs a program. One that runs another one is looked through.
func runProgram(s *shell, st *state, c call) {
	if s.over(st, c.at) {
		return
	}
	if s.depth++; s.depth > maxDepth {
		s.over(st, c.at)
		s.depth--
		return
	}
	defer func() { s.depth-- }()
	name := path.Base(c.words[0].Text)
	switch {
	case c.err == nil && slices.Contains(shells, name):
		runShell(s, st, c)
		return
	case name == "sudo" || name == "su" || name == "runuser" || name == "env":
		runElsewhere(s, st, c, name)
		return
	case runWrapper(s, st, c, name):
		return
	case name == "tee":
		writeTee(s, st, c)
		return
	case c.err == nil && followScript(s, st, c):
		return
	}
	markTouched(s, st, c)
	s.record(st, c)
}

// markTouched makes the files unknown that a program may change.
func markTouched(s *shell, st *state, c call) {
	if slices.Contains([]string{
		"chmod", "chown", "chgrp", "ls", "cat", "stat", "mkdir", "systemctl", "supervisorctl", "touch",
	}, path.Base(c.words[0].Text)) {
		return
	}
	for _, w := range c.words[1:] {
		if f, ok := s.files[st.file(w.Text)]; ok && !strings.HasPrefix(w.Text, "-") {
			f.err = c.at.Errorf("what %s is after this line cannot be known", w.Text)
		}
	}
}

// runWrapper runs a program through another that changes nothing of what counts here.
func runWrapper(s *shell, st *state, c call, name string) bool {
	withValue, ok := map[string]string{ // the options that have a value of their own
		"nohup": "", "setsid": "", "time": "fo", "nice": "n", "ionice": "cnp", "stdbuf": "ioe", "catchsegv": "",
		"tini": "pe", "dumb-init": "r", "timeout": "ks", "taskset": "", "gosu": "", "su-exec": "", "setuidgid": "",
	}[name]
	if !ok {
		return false
	}
	i := options(c.words, withValue)
	switch name {
	case "timeout", "taskset": // the time, the processors
		i++
	case "gosu", "su-exec", "setuidgid":
		if i >= len(c.words) {
			return false
		}
		user := c.words[i]
		st = st.clone()
		st.user = user
		if u, g, ok := strings.Cut(user.Text, ":"); ok {
			st.user, st.group = members.Word{Text: u, At: user.At}, members.Word{Text: g, At: user.At}
		}
		i++
	}
	if i >= len(c.words) {
		return false
	}
	c.words = c.words[i:]
	runProgram(s, st, c)
	return true
}

// options returns the number of the first word behind a program's options.
func options(words []members.Word, withValue string) int {
	i := 1
	for ; i < len(words); i++ {
		w := words[i].Text
		if w == "--" {
			return i + 1
		}
		if len(w) < 2 || w[0] != '-' {
			break
		}
		if w[1] != '-' && strings.IndexByte(withValue, w[len(w)-1]) >= 0 {
			i++
		}
	}
	return i
}

// followScript follows a program that is a script which can be read.
func followScript(s *shell, st *state, c call) bool {
	name := c.words[0].Text
	if !strings.Contains(name, "/") {
		return false
	}
	_, ours := s.files[st.file(name)]
	if !ours && !path.IsAbs(st.file(name)) {
		return false
	}
	text, at, err := s.read(st, name, c.at)
	if err != nil && !ours {
		return false // a program, as far as can be known
	}
	if interpreter := shebang(text); err == nil && (interpreter != "" && !slices.Contains(shells, interpreter) ||
		interpreter == "" && !ours && strings.Contains(text, "\x00")) {
		return false
	}
	if err != nil {
		c.err = err
		s.record(st, c)
		return true
	}
	runChild(s, st, c, text, at, false, c.words)
	return true
}

// runChild runs a text in a shell of its own. args are $0 and what follows it.
func runChild(s *shell, st *state, c call, text string, at lines, bash bool, args []members.Word) {
	own := st.inherited()
	own.args, own.argsErr, own.replaced = slices.Clone(args), nil, c.exec
	if err := s.text(own, at, text, bash); err != nil {
		c.err = err
		s.record(st, c)
	}
}

// runShell is sh -c TEXT, sh FILE, or sh with a here-document.
func runShell(s *shell, st *state, c call) {
	bash := path.Base(c.words[0].Text) == "bash"
	st = st.clone()
	i, command := 1, false
	for ; i < len(c.words); i++ {
		w := c.words[i].Text
		if len(w) < 2 || w[0] != '-' && w[0] != '+' || w == "--" {
			break
		}
		switch {
		case strings.HasPrefix(w, "--"):
			if w == "--rcfile" || w == "--init-file" {
				i++
			}
		case strings.HasSuffix(w, "o"): // -o pipefail
			i++
		}
		if w[1] != '-' {
			command = command || strings.Contains(w, "c")
			if strings.ContainsAny(w, "af") || strings.Contains(w, "l") {
				st.all = c.at.Errorf("%s %s is not understood", c.words[0].Text, w)
			}
		}
	}
	if i < len(c.words) && (c.words[i].Text == "--" || c.words[i].Text == "-") {
		i++
	}
	switch {
	case command && i < len(c.words):
		args := c.words[i+1:]
		if len(args) == 0 {
			args = []members.Word{{Text: c.words[0].Text, At: c.at}}
		}
		runChild(s, st, c, c.words[i].Text, lines{at: c.words[i].At}, bash, args)
	case i < len(c.words) && !command:
		text, at, err := s.read(st, c.words[i].Text, c.at)
		if err != nil {
			c.err = err
			s.record(st, c)
			return
		}
		// The first line of a script counts only where it is run by itself.
		if interpreter := shebang(text); interpreter != "" && slices.Contains(shells, interpreter) {
			text = "#" + strings.TrimPrefix(text, "#!")
		}
		runChild(s, st, c, text, at, bash, c.words[i:])
	case c.stdin != nil && c.inErr == nil && !command:
		runChild(s, st, c, c.stdin.Text, lines{at: c.stdin.At, lines: c.lines}, bash,
			[]members.Word{{Text: c.words[0].Text, At: c.at}})
	default:
		if c.err == nil {
			c.err = c.inErr
		}
		s.record(st, c)
	}
}

// inherited is what a program's own shell begins with.
func (st *state) inherited() *state {
	own := st.clone()
	own.funcs, own.export, own.ended, own.within = map[string]function{}, false, false, false
	for name, v := range own.vars {
		if !v.exported || v.array {
			delete(own.vars, name)
		} else if !v.set && v.err == nil {
			delete(own.vars, name)
		}
	}
	return own
}

// runElsewhere is sudo, su, runuser or env: the program has another user or environment.
func runElsewhere(s *shell, st *state, c call, name string) {
	st = st.clone()
	whole := c
	switch name {
	case "env":
		c.words = afterEnv(s, st, c)
	case "sudo":
		c.words = afterSudo(s, st, c)
	default:
		c.words = afterSu(s, st, c, name)
	}
	if len(c.words) == 0 {
		whole.err = c.at.Errorf("%s is not understood", join(whole.words))
		s.record(st, whole)
		return
	}
	runProgram(s, st, c)
}

// assignments takes X=y words from the beginning.
func assignments(st *state, words []members.Word) []members.Word {
	for len(words) > 0 {
		name, text, ok := strings.Cut(words[0].Text, "=")
		if !ok || name == "" {
			break
		}
		st.vars[name] = value{text: text, set: true, exported: true, at: words[0].At}
		words = words[1:]
	}
	return words
}

func afterEnv(s *shell, st *state, c call) []members.Word {
	words := c.words[1:]
	for len(words) > 0 && strings.HasPrefix(words[0].Text, "-") {
		switch w := words[0].Text; {
		case w == "-i" || w == "-" || w == "--ignore-environment":
			st.vars = map[string]value{}
		case w == "-u" && len(words) > 1:
			st.vars[words[1].Text] = value{}
			words = words[1:]
		case strings.HasPrefix(w, "--unset="):
			st.vars[strings.TrimPrefix(w, "--unset=")] = value{}
		case w == "-C" && len(words) > 1:
			st.chdir(words[1])
			words = words[1:]
		case strings.HasPrefix(w, "--chdir="):
			st.chdir(members.Word{Text: strings.TrimPrefix(w, "--chdir="), At: words[0].At})
		case w == "--":
		default:
			return nil
		}
		words = words[1:]
	}
	return assignments(st, words)
}

func afterSudo(s *shell, st *state, c call) []members.Word {
	words, keep := c.words[1:], false
	st.user = members.Word{Text: "root", At: c.at}
	for len(words) > 0 && strings.HasPrefix(words[0].Text, "-") {
		w, value := words[0].Text, members.Word{At: words[0].At}
		if key, text, ok := strings.Cut(w, "="); ok && strings.HasPrefix(w, "--") {
			w, value.Text = key, text
		} else if slices.Contains([]string{"-u", "-g", "-D", "-h", "-p", "-C", "-R", "-T", "-r", "-t",
			"--user", "--group", "--chdir", "--prompt"}, w) && len(words) > 1 {
			value, words = words[1], words[1:]
		} else if len(w) > 2 && w[1] != '-' && strings.HasPrefix(w, "-u") {
			w, value.Text = "-u", w[2:]
		}
		switch w {
		case "-u", "--user":
			st.user = members.Word{Text: strings.TrimPrefix(value.Text, "#"), At: value.At}
		case "-g", "--group":
			st.group = members.Word{Text: strings.TrimPrefix(value.Text, "#"), At: value.At}
		case "-D", "--chdir":
			st.chdir(value)
		case "-E", "--preserve-env":
			keep = true
		case "-n", "-H", "-b", "-k", "-A", "-S", "-P", "-p", "--prompt", "-C", "-T", "--":
		case "-nE", "-En", "-EH", "-HE":
			keep = true
		default: // a login shell, another host, another root
			return nil
		}
		words = words[1:]
		if w == "--" {
			break
		}
	}
	for name, v := range st.vars {
		if v.exported && !keep {
			st.vars[name] = value{exported: true, at: v.at,
				err: c.at.Errorf("sudo passes $%s on or not, as its own settings say", name)}
		}
	}
	return assignments(st, words)
}

// afterSu is su and runuser: it returns the command as a shell's.
func afterSu(s *shell, st *state, c call, name string) []members.Word {
	st.user = members.Word{Text: "root", At: c.at}
	var command *members.Word
	var rest []members.Word
	shell, login, direct := members.Word{Text: "sh", At: c.at}, false, false
	words := c.words[1:]
	for i := 0; i < len(words); i++ {
		w, value := words[i].Text, members.Word{At: words[i].At}
		if key, text, ok := strings.Cut(w, "="); ok && strings.HasPrefix(w, "--") {
			w, value.Text = key, text
		} else if slices.Contains([]string{
			"-c", "-s", "-g", "-G", "-u", "-lc", "--command", "--shell", "--group", "--user",
		}, w) && i+1 < len(words) {
			i++
			value = words[i]
		}
		switch w {
		case "-c", "--command", "-lc":
			command, login = &value, login || w == "-lc"
		case "-s", "--shell":
			shell = value
		case "-g", "--group":
			st.group = value
		case "-u", "--user":
			st.user, direct = value, name == "runuser"
		case "-", "-l", "--login":
			login = true
		case "-m", "-p", "--preserve-environment", "-f":
		case "--":
			rest = append(rest, words[i+1:]...)
			i = len(words)
		default:
			if strings.HasPrefix(w, "-") {
				return nil
			}
			rest = append(rest, words[i])
		}
	}
	if login {
		st.vars = map[string]value{}
		st.all = nil
		st.dir, st.dirErr = members.Word{}, c.at.Errorf("it is the home directory of the user")
	}
	if direct {
		return rest
	}
	if len(rest) > 0 {
		st.user, rest = rest[0], rest[1:]
	}
	if command == nil || !slices.Contains(shells, path.Base(shell.Text)) {
		return nil
	}
	return append([]members.Word{shell, {Text: "-c", At: command.At}, *command}, rest...)
}
