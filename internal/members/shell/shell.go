// Package shell tells which commands a shell script runs, without running it: the words, the
// environment, the working directory and the user of each. What cannot be known from the text
// alone is not guessed: a command that depends on it has an error with the line.
package shell

import (
	"path"
	"slices"
	"strings"

	"mvdan.cc/sh/v3/syntax"

	"github.com/etcd-backupd/backupd/internal/members"
)

// Command is a simple command that a shell would run.
type Command struct {
	// Words are the program and its arguments. A word that cannot be known is there as it
	// is written.
	Words []members.Word
	// Env is what the command gets as far as it is known: inherited, exported and prefixed.
	Env []members.Variable
	// Dir is the working directory; its text is empty if it cannot be known.
	Dir members.Word
	// User and Group are those that sudo, su and the like change to, and empty otherwise.
	User, Group members.Word
	// Exec is true if the command takes the place of the shell.
	Exec bool
	// Err says why the command cannot be known: what one of its words, its environment, or
	// whether it is run at all depends on.
	Err error
	// Notes are what was taken for granted.
	Notes []members.Note
}

// Options are what a script depends on besides its text.
type Options struct {
	// Hostname is what $(hostname) gives; empty means that it is not known.
	Hostname string
	// Args are $0 and the arguments; nil means that they are not known.
	Args []members.Word
	// Dir is the working directory at the beginning; empty means that it is not known.
	Dir members.Word
	// Whole is true if the environment that was given is all there is: any other variable is
	// unset. Otherwise its value is that of whoever runs the script.
	Whole bool
	// Bash is true if the text is bash's. Otherwise its first line says it, and a text that
	// does not is read as one whose meaning must be the same in sh and in bash.
	Bash bool
	// ReadFile reads scripts that are run or sourced by absolute path; nil reads none.
	ReadFile func(path string) ([]byte, error)
}

// File is one that a script writes by a here-document.
type File struct {
	Path string // absolute if the working directory is known
	Text members.Word
	Err  error // why its text cannot be known
}

// Commands returns the commands that a shell runs that is given text, in order. The error is
// one of the text's syntax.
func Commands(text members.Word, env []members.Variable, o Options) ([]Command, error) {
	commands, _, err := Evaluate(text, env, o)
	return commands, err
}

// Evaluate is [Commands] that also returns the files that the script writes by
// here-documents and does not run itself.
func Evaluate(text members.Word, env []members.Variable, o Options) ([]Command, []File, error) {
	s := newShell(o)
	st := begin(s, env)
	st.args, st.dir = o.Args, o.Dir
	if err := s.text(st, lines{at: text.At}, text.Text, o.Bash); err != nil {
		return nil, nil, err
	}
	return s.commands, s.written(), nil
}

// Run returns the commands that come of one, whose words are expanded already: the command
// of a container, or of a program that is kept running. Programs that run others (sh -c,
// sudo, env, a script that can be read) are looked through.
func Run(words []members.Word, env []members.Variable, o Options) ([]Command, error) {
	commands, _, err := RunAll(words, env, o)
	return commands, err
}

// RunAll is [Run] that also returns the files that are written.
func RunAll(words []members.Word, env []members.Variable, o Options) ([]Command, []File, error) {
	if len(words) == 0 {
		return nil, nil, nil
	}
	s := newShell(o)
	st := begin(s, env)
	st.dir = o.Dir
	runProgram(s, st, call{words: words, exec: true, at: words[0].At})
	return s.commands, s.written(), s.syntax
}

// IsEtcd reports whether the command starts an etcd server, or may do so.
func (c Command) IsEtcd() bool {
	if len(c.Words) == 0 {
		return false
	}
	if members.IsProgram(c.Words[0].Text) {
		return true
	}
	return c.Err != nil && strings.ContainsAny(c.Words[0].Text, "$`*?") && slices.ContainsFunc(c.Words, isServerFlag)
}

// Hides reports whether the command may run others that are not known: it is a shell or a
// script, and its text is not known.
func (c Command) Hides() bool {
	if c.Err == nil || len(c.Words) == 0 {
		return c.Err != nil
	}
	program := c.Words[0].Text
	return strings.ContainsAny(program, "$`*?") || slices.Contains(shells, path.Base(program)) ||
		slices.Contains([]string{"eval", ".", "source", "su", "sudo", "runuser", "env"}, path.Base(program)) ||
		strings.HasSuffix(program, ".sh")
}

// isServerFlag reports whether a word is a flag that only a server has.
func isServerFlag(w members.Word) bool {
	name, _, _ := strings.Cut(strings.TrimLeft(w.Text, "-"), "=")
	return strings.HasPrefix(w.Text, "-") && slices.Contains([]string{
		"listen-peer-urls", "listen-client-urls", "advertise-client-urls", "initial-cluster-state",
	}, name)
}

const (
	maxDepth    = 20       // of functions, scripts and substitutions within each other
	maxCommands = 10_000   // of one script, with what its loops repeat
	maxExpanded = 16 << 20 // bytes of all texts that expansions give
)

// shell is one evaluation.
type shell struct {
	o        Options
	commands []Command
	files    map[string]*file
	depth    int
	steps    int
	expanded int
	syntax   error
}

func newShell(o Options) *shell { return &shell{o: o, files: map[string]*file{}} }

// lines gives the positions of a text's lines.
type lines struct {
	at    members.Position
	lines []int // the line of each one, if they do not follow each other
	flat  bool  // all are at one
}

func (l lines) line(n uint) members.Position {
	at := l.at
	switch {
	case n == 0 || l.flat:
	case int(n) <= len(l.lines):
		at.Line = l.lines[n-1]
	case at.Line > 0:
		at.Line += int(n) - 1
	}
	return at
}

func (l lines) of(n syntax.Node) members.Position { return l.line(n.Pos().Line()) }

// runSource is a text that is being evaluated.
type source struct {
	lines
	bash bool
	text string
}

// raw is the text of a node.
func (src source) raw(n syntax.Node) string {
	from, to := int(n.Pos().Offset()), int(n.End().Offset())
	if from > to || to > len(src.text) {
		return ""
	}
	return src.text[from:to]
}

// text parses and runs a text.
func (s *shell) text(st *state, at lines, text string, bash bool) error {
	bash = bash || shebang(text) == "bash"
	if name := shebang(text); name != "" && !slices.Contains(shells, name) {
		return at.line(1).Errorf("a script of %s is not understood", name)
	}
	text = strings.ReplaceAll(text, "\x00", "")
	if before, _, ok := strings.Cut(text, "\r"); ok {
		return at.line(uint(strings.Count(before, "\n")) + 1).Errorf(
			"there is a carriage return, which a shell takes as part of a word")
	}
	parser := syntax.NewParser(syntax.Variant(syntax.LangBash), syntax.KeepComments(true))
	f, err := parser.Parse(strings.NewReader(text), "")
	if err != nil {
		return syntaxError(at, err)
	}
	if n := cutByComment(f, text); n > 0 {
		return at.line(n).Errorf("a shell ends the command with this comment, and what follows is another command")
	}
	s.run(st, source{at, bash, text}, f.Stmts)
	return nil
}

// cutByComment returns the line of a comment within a command that ends with a backslash, and
// 0 if there is none. A shell takes no continuation from a comment; the parser does.
func cutByComment(f *syntax.File, text string) (line uint) {
	lines := strings.Split(text, "\n")
	alone := map[uint]bool{} // lines of comments between commands
	syntax.Walk(f, func(n syntax.Node) bool {
		c, ok := n.(*syntax.Comment)
		if !ok {
			return true
		}
		on := c.Hash.Line()
		own := strings.HasPrefix(strings.TrimSpace(lines[on-1]), "#")
		alone[on] = own && (on == 1 || alone[on-1] || !strings.HasSuffix(lines[on-2], `\`))
		if !alone[on] && strings.HasSuffix(lines[on-1], `\`) && line == 0 {
			line = on
		}
		return true
	})
	return line
}

func syntaxError(at lines, err error) error {
	if e, ok := err.(syntax.ParseError); ok { // the parser wraps none of them
		return at.line(e.Pos.Line()).Errorf("it is not understood as a shell script: %s", e.Text)
	}
	if e, ok := err.(syntax.LangError); ok {
		return at.line(e.Pos.Line()).Errorf("it is not understood as a shell script: %v", e.Feature)
	}
	return at.at.Errorf("it is not understood as a shell script: %v", err)
}

// shells are the programs whose language is known here.
var shells = []string{"sh", "bash", "dash", "ash", "ksh", "rbash"}

// shebang returns the base name of the interpreter in the first line, and "" if there is none.
func shebang(text string) string {
	first, _, _ := strings.Cut(text, "\n")
	rest, ok := strings.CutPrefix(first, "#!")
	if !ok {
		return ""
	}
	words := strings.Fields(rest)
	if len(words) == 0 {
		return ""
	}
	if path.Base(words[0]) == "env" {
		words = slices.DeleteFunc(words[1:], func(w string) bool { return strings.HasPrefix(w, "-") })
	}
	if len(words) == 0 {
		return ""
	}
	return path.Base(words[0])
}
