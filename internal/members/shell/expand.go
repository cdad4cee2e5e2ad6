package shell

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"mvdan.cc/sh/v3/expand"
	"mvdan.cc/sh/v3/syntax"

	"github.com/etcd-backupd/backupd/internal/members"
)

func itoa(n int) string { return strconv.Itoa(n) }

func atoi(s string) int {
	n, err := strconv.Atoi(s)
	if err != nil {
		return -1
	}
	return n
}

// expansion is the environment of the expansion of one word. It remembers why something of it
// cannot be known.
type expansion struct {
	s        *shell
	st       *state
	src      source
	at       members.Position
	err      error
	globbed  bool
	defaults map[string]bool // variables that have a default wherever the word has them
	dir      bool            // the word has $PWD, which the library asks for in any case
	notes    []members.Note
	bytes    int
}

// Get returns a variable.
func (e *expansion) Get(name string) expand.Variable {
	if name == "PWD" && !e.dir {
		return expand.Variable{}
	}
	v := e.s.lookup(e.st, name, e.src, e.at)
	if v.open && e.defaults[name] {
		e.notes = append(e.notes, members.Note{At: e.at,
			Text: fmt.Sprintf("$%s is set nowhere in this file: its default is taken", name)})
		v = value{}
	}
	switch {
	case v.err != nil:
		e.fail(v.err)
		return expand.Variable{}
	case !v.set:
		return expand.Variable{}
	case v.array:
		if e.grow(len(strings.Join(v.list, " "))) {
			return expand.Variable{}
		}
		return expand.Variable{Set: true, Kind: expand.Indexed, List: v.list}
	}
	if e.grow(len(v.text)) {
		return expand.Variable{}
	}
	return expand.Variable{Set: true, Kind: expand.String, Str: v.text}
}

// Set is an assignment within a word, as in ${X:=default}.
func (e *expansion) Set(name string, v expand.Variable) error {
	if v.Kind != expand.String {
		return e.at.Errorf("%s is assigned in a way that is not understood", name)
	}
	e.st.set(name, value{text: v.Str, set: true, at: e.at, err: e.err})
	return nil
}

// Each would list all variables, which cannot be known.
func (e *expansion) Each(func(string, expand.Variable) bool) {
	e.fail(e.at.Errorf("a list of all variables cannot be known"))
}

func (e *expansion) fail(err error) {
	if e.err == nil {
		e.err = err
	}
}

// grow counts bytes that an expansion gives, and reports whether these are too many.
func (e *expansion) grow(n int) bool {
	e.bytes += n
	e.s.expanded += n
	if e.bytes <= members.MaxValueBytes && e.s.expanded <= maxExpanded {
		return false
	}
	e.fail(e.at.Errorf("the text gets too long to be followed"))
	return true
}

func (e *expansion) config() *expand.Config {
	return &expand.Config{
		Env: e,
		CmdSubst: func(w io.Writer, cs *syntax.CmdSubst) error {
			out, err := e.s.output(e.st, e.src, cs)
			if err != nil {
				e.fail(err)
				return nil
			}
			_, err = io.WriteString(w, out)
			return err
		},
		ProcSubst: func(*syntax.ProcSubst) (string, error) {
			return "", e.at.Errorf("a process substitution is not understood")
		},
		ReadDir2: func(string) ([]fs.DirEntry, error) {
			e.globbed = true
			return nil, nil
		},
	}
}

func (s *shell) expansion(st *state, src source, n syntax.Node) *expansion {
	e := &expansion{s: s, st: st, src: src, at: src.of(n), defaults: map[string]bool{}}
	plain := map[string]bool{}
	syntax.Walk(n, func(n syntax.Node) bool {
		switch n := n.(type) {
		case *syntax.ParamExp:
			e.parameter(n, plain)
		case *syntax.CmdSubst:
			return false // it is looked at when it is run
		case *syntax.ProcSubst, *syntax.ExtGlob:
			e.fail(e.at.Errorf("%s is not understood", brief(src.raw(n))))
		case *syntax.SglQuoted:
			if n.Dollar {
				e.fail(e.at.Errorf("%s is not the same in sh and in bash", brief(src.raw(n))))
			}
		case *syntax.DblQuoted:
			if n.Dollar {
				e.fail(e.at.Errorf("%s depends on the language of whoever runs it", brief(src.raw(n))))
			}
		case *syntax.Lit:
			if strings.Contains(n.Value, "=~") || strings.Contains(n.Value, ":~") {
				e.fail(e.at.Errorf("%s: whether ~ is a home directory here depends on the shell", n.Value))
			}
		}
		return true
	})
	for name := range plain {
		delete(e.defaults, name)
	}
	return e
}

// parameter looks at one ${X}.
func (e *expansion) parameter(p *syntax.ParamExp, plain map[string]bool) {
	if p.Param == nil || p.Excl || p.Names != 0 || p.Width || p.Flags != nil || p.IsSet || p.Param.Value == "LINENO" {
		e.fail(e.at.Errorf("%s is not understood", brief(e.src.raw(p))))
		return
	}
	e.dir = e.dir || p.Param.Value == "PWD"
	if p.Exp != nil && p.Exp.Word != nil && strings.Contains(e.src.raw(p.Exp.Word), `\`) {
		e.fail(e.at.Errorf("%s is not understood: there is a backslash in it", brief(e.src.raw(p))))
	}
	if p.Exp != nil && slices.Contains([]syntax.ParExpOperator{
		syntax.DefaultUnset, syntax.DefaultUnsetOrNull, syntax.AssignUnset, syntax.AssignUnsetOrNull,
	}, p.Exp.Op) {
		e.defaults[p.Param.Value] = true
		return
	}
	plain[p.Param.Value] = true
}

// done is the error of an expansion, that of the library included.
func (e *expansion) done(err error) error {
	if e.err != nil {
		return e.err
	}
	var known *members.FileError
	if err == nil || errors.As(err, &known) {
		return err
	}
	return e.at.Errorf("%v", err)
}

// fields expands a word of a command.
func (s *shell) fields(st *state, src source, w *syntax.Word) ([]string, []members.Note, error) {
	e := s.expansion(st, src, w)
	if !src.bash && braces(w) {
		e.fail(e.at.Errorf("%s is not the same in sh and in bash", brief(src.raw(w))))
	}
	out, err := expand.Fields(e.config(), w)
	for _, f := range out {
		s.expanded += len(f)
	}
	e.grow(0)
	if e.globbed && err == nil {
		for _, f := range out {
			// A file would have to be named like a flag or a URL.
			if !strings.HasPrefix(f, "-") && !strings.Contains(f, "://") && strings.ContainsAny(f, "*?[") {
				e.fail(e.at.Errorf("%s depends on the files that are there", brief(src.raw(w))))
			}
		}
	}
	return out, e.notes, e.done(err)
}

// braces reports whether bash makes several words of a word.
func braces(w *syntax.Word) bool {
	return syntax.SplitBraces(&syntax.Word{Parts: slices.Clone(w.Parts)})
}

// literal expands a word where it stays one: in an assignment.
func (s *shell) literal(st *state, src source, w *syntax.Word) (string, []members.Note, error) {
	if w == nil {
		return "", nil, nil
	}
	e := s.expansion(st, src, w)
	out, err := expand.Literal(e.config(), unescaped(w))
	e.grow(len(out))
	return out, e.notes, e.done(err)
}

// unescaped writes unquoted backslashes as quotes: the library leaves them where they are.
func unescaped(w *syntax.Word) *syntax.Word {
	out := &syntax.Word{}
	for _, p := range w.Parts {
		l, ok := p.(*syntax.Lit)
		if !ok {
			out.Parts = append(out.Parts, p)
			continue
		}
		before, rest, escaped := strings.Cut(l.Value, `\`)
		for ; escaped && rest != ""; before, rest, escaped = strings.Cut(rest, `\`) {
			_, size := utf8.DecodeRuneInString(rest)
			if before != "" {
				out.Parts = append(out.Parts, &syntax.Lit{Value: before})
			}
			if rest[:size] != "\n" {
				out.Parts = append(out.Parts, &syntax.SglQuoted{Value: rest[:size]})
			}
			rest = rest[size:]
		}
		if before != "" {
			out.Parts = append(out.Parts, &syntax.Lit{Value: before})
		}
	}
	return out
}

// output is what a command substitution gives.
func (s *shell) output(st *state, src source, cs *syntax.CmdSubst) (string, error) {
	if s.depth++; s.depth > maxDepth {
		return "", src.of(cs).Errorf("too many things within each other")
	}
	defer func() { s.depth-- }()
	if cs.TempFile || cs.ReplyVar || len(cs.Stmts) != 1 {
		return "", src.of(cs).Errorf("%s cannot be known from the text", brief(src.raw(cs)))
	}
	out, ok, err := prints(s, st.clone(), src, cs.Stmts[0])
	if err == nil && !ok {
		err = src.of(cs).Errorf("what %s gives cannot be known from the text", brief(src.raw(cs)))
	}
	return out, err
}

// prints is what a statement of a command substitution writes, if that can be known.
func prints(s *shell, st *state, src source, stmt *syntax.Stmt) (string, bool, error) {
	for _, r := range stmt.Redirs {
		if r.N == nil || r.N.Value != "2" {
			return "", false, nil
		}
	}
	if stmt.Negated || stmt.Background {
		return "", false, nil
	}
	if b, ok := stmt.Cmd.(*syntax.BinaryCmd); ok && b.Op == syntax.AndStmt {
		first, ok, err := prints(s, st, src, b.X)
		if err != nil || !ok {
			return "", ok, err
		}
		second, ok, err := prints(s, st, src, b.Y)
		return first + second, ok, err
	}
	c, ok := stmt.Cmd.(*syntax.CallExpr)
	if !ok || len(c.Assigns) > 0 || len(c.Args) == 0 {
		return "", false, nil
	}
	var args []string
	for _, w := range c.Args {
		f, _, err := s.fields(st, src, w)
		if err != nil {
			return "", false, err
		}
		args = append(args, f...)
	}
	if len(args) == 0 || st.funcs[args[0]].body != nil || st.funcs[args[0]].err != nil {
		return "", false, nil
	}
	return wellKnown(s, st, args, src.of(c))
}

// wellKnown is what a well-known command writes.
func wellKnown(s *shell, st *state, args []string, at members.Position) (string, bool, error) {
	name, args := path.Base(args[0]), args[1:]
	line := strings.Join(args, " ")
	switch {
	case name == "hostname" && (line == "" || line == "-s") || name == "uname" && line == "-n":
		if s.o.Hostname == "" {
			return "", false, at.Errorf("%s depends on the host, whose name is not known",
				strings.TrimSpace(name+" "+line))
		}
		if line == "-s" {
			short, _, _ := strings.Cut(s.o.Hostname, ".")
			return short, true, nil
		}
		return s.o.Hostname, true, nil
	case name == "echo" && !strings.Contains(line, `\`) && !strings.HasPrefix(line, "-"):
		return line + "\n", true, nil
	case name == "seq" && (len(args) == 1 || len(args) == 2):
		out, ok := sequence(args)
		return out, ok, nil
	case name == "printf" && len(args) == 2 && (args[0] == "%s" || args[0] == `%s\n`):
		return args[1], true, nil
	case name == "pwd" && line == "" && st.dir.Text != "":
		return st.dir.Text, true, nil
	case name == "cd":
		args = slices.DeleteFunc(args, func(a string) bool { return a == "--" })
		if len(args) != 1 || strings.HasPrefix(args[0], "-") || args[0] == "" {
			return "", false, nil
		}
		st.chdir(members.Word{Text: args[0], At: at})
		return "", st.dir.Text != "", nil
	case name == "dirname" && len(args) == 1 && args[0] != "" && !strings.HasPrefix(args[0], "-"):
		return path.Dir(args[0]), true, nil
	case name == "basename" && len(args) == 1 && args[0] != "" && !strings.HasPrefix(args[0], "-"):
		return path.Base(args[0]), true, nil
	}
	return "", false, nil
}

// sequence is what seq writes: the numbers from 1, or from the first argument, to the last.
func sequence(args []string) (string, bool) {
	from, to := 1, atoi(args[len(args)-1])
	if len(args) == 2 {
		from = atoi(args[0])
	}
	if from < 0 || to < 0 || to-from > 1000 { // no numbers, or too many
		return "", false
	}
	var out strings.Builder
	for i := from; i <= to; i++ {
		out.WriteString(itoa(i) + "\n")
	}
	return out.String(), true
}
