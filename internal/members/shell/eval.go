package shell

import (
	"regexp"
	"slices"
	"strings"
	"unicode"

	"mvdan.cc/sh/v3/expand"
	"mvdan.cc/sh/v3/pattern"
	"mvdan.cc/sh/v3/syntax"

	"github.com/etcd-backupd/backupd/internal/members"
)

// run runs statements until one ends the shell.
func (s *shell) run(st *state, src source, stmts []*syntax.Stmt) {
	for _, stmt := range stmts {
		if st.ended || s.over(st, src.of(stmt)) {
			return
		}
		s.stmt(st, src, stmt)
	}
}

// over reports whether the evaluation is at its end for there is too much of it.
func (s *shell) over(st *state, at members.Position) bool {
	s.steps++
	if s.depth > maxDepth || s.steps > maxCommands {
		st.all = at.Errorf("the script repeats too much to be followed")
		note(s, st, at)
		return true
	}
	return false
}

// note records a command that is not known at all: some part of the script is not followed.
func note(s *shell, st *state, at members.Position) {
	if n := len(s.commands); n > 0 && len(s.commands[n-1].Words) == 0 {
		return
	}
	s.commands = append(s.commands, Command{Err: st.all, Dir: members.Word{At: at}})
}

func (s *shell) stmt(st *state, src source, stmt *syntax.Stmt) {
	if stmt.Background || stmt.Coprocess || stmt.Disown {
		st = st.subshell()
	}
	if stmt.Cmd == nil {
		redirect(s, st, src, stmt, nil)
		return
	}
	switch c := stmt.Cmd.(type) {
	case *syntax.CallExpr:
		s.call(st, src, stmt, c)
		return
	case *syntax.Block:
		s.run(st, src, c.Stmts)
	case *syntax.Subshell:
		s.run(st.subshell(), src, c.Stmts)
	case *syntax.BinaryCmd:
		runBinary(s, st, src, c)
	case *syntax.IfClause:
		runIf(s, st, src, c)
	case *syntax.WhileClause:
		runWhile(s, st, src, c)
	case *syntax.ForClause:
		runFor(s, st, src, c)
	case *syntax.CaseClause:
		runCase(s, st, src, c)
	case *syntax.FuncDecl:
		if c.Name != nil {
			st.funcs[c.Name.Value] = function{body: c.Body, src: src}
		}
	case *syntax.DeclClause:
		declare(s, st, src, c)
	case *syntax.TimeClause:
		if c.Stmt != nil {
			s.stmt(st, src, c.Stmt)
		}
	case *syntax.TestClause: // it changes nothing but BASH_REMATCH
	default: // arithmetic, let, coproc
		forget(s, st, src, stmt, src.of(stmt).Errorf("%s is not understood", brief(src.raw(stmt))))
	}
	redirect(s, st, src, stmt, nil)
}

// brief is the beginning of a text: a program, the name of a variable. What follows may be a secret.
func brief(text string) string {
	i := strings.IndexFunc(text, func(r rune) bool {
		return !unicode.IsLetter(r) && !unicode.IsDigit(r) && !strings.ContainsRune("_./$(){}@*#[+", r)
	})
	if i < 0 {
		return text
	}
	short := text[:i] + "…"
	if strings.HasPrefix(text[i:], " ") {
		short = text[:i] + " …"
	}
	if strings.HasPrefix(text, "$(") {
		short += ")"
	}
	return short
}

// forget makes unknown what the node may assign.
func forget(s *shell, st *state, src source, n syntax.Node, why error) {
	syntax.Walk(n, func(n syntax.Node) bool {
		switch n := n.(type) {
		case *syntax.Assign:
			if n.Name != nil {
				st.set(n.Name.Value, value{err: why})
			}
		case *syntax.Word:
			if lit := n.Lit(); syntax.ValidName(lit) {
				if old, ok := st.vars[lit]; ok {
					st.vars[lit] = value{err: why, exported: old.exported}
				}
			}
		case *syntax.Lit:
			if old, ok := st.vars[n.Value]; ok {
				st.vars[n.Value] = value{err: why, exported: old.exported}
			} else if syntax.ValidName(n.Value) {
				st.vars[n.Value] = value{err: why}
			}
		}
		return true
	})
}

// branch runs statements of which it is not known whether they are run.
func branch(s *shell, st *state, src source, why error, stmts ...*syntax.Stmt) *state {
	b := st.clone()
	if b.cond == nil {
		b.cond = why
	}
	s.run(b, src, stmts)
	return b
}

func runBinary(s *shell, st *state, src source, c *syntax.BinaryCmd) {
	switch c.Op {
	case syntax.AndStmt, syntax.OrStmt:
		why := src.line(c.OpPos.Line()).Errorf("whether it is run depends on whether the command before %s succeeds",
			c.Op)
		s.stmt(st, src, c.X)
		if st.ended {
			return
		}
		success, sure := succeeds(s, st, src, c.X)
		switch {
		case sure == certain && success == (c.Op == syntax.AndStmt),
			sure == presumed && success && c.Op == syntax.AndStmt:
			s.stmt(st, src, c.Y)
		case sure == certain:
		default:
			st.merge(why, branch(s, st, src, why, c.Y), st.clone())
		}
	default: // a pipe: each command has a shell of its own
		s.stmt(st.subshell(), src, c.X)
		to := st.subshell()
		if cat, ok := c.X.Cmd.(*syntax.CallExpr); ok && len(cat.Args) == 1 && cat.Args[0].Lit() == "cat" {
			for _, r := range c.X.Redirs {
				if r.Op == syntax.Hdoc || r.Op == syntax.DashHdoc {
					to.input = &call{}
					to.input.stdin, to.input.lines, to.input.inErr = hereDocument(s, st, src, r)
				}
			}
		}
		s.stmt(to, src, c.Y)
	}
}

// sureness is how well the success of a command is known.
type sureness int

const (
	unknown  sureness = iota
	presumed          // a start that works has it
	certain
)

// succeeds tells whether a statement that has been run was successful.
func succeeds(s *shell, st *state, src source, stmt *syntax.Stmt) (bool, sureness) {
	switch c := stmt.Cmd.(type) {
	case *syntax.CallExpr:
		if len(c.Args) == 0 {
			return !stmt.Negated, presumed
		}
		name := c.Args[0].Lit()
		switch name {
		case "true", ":", "false":
			return (name != "false") != stmt.Negated, certain
		case "[", "test":
			success, known := evalTest(s, st, src, c.Args[1:], name == "[")
			if !known {
				return false, unknown
			}
			return success != stmt.Negated, certain
		case "mkdir":
			if len(c.Args) < 2 || c.Args[1].Lit() != "-p" {
				return false, unknown
			}
			return !stmt.Negated, presumed
		case "cd", "chown", "chmod", "echo", "printf", "ulimit", "umask", "set", "touch", "sleep", "source", ".", "date":
			return !stmt.Negated, presumed
		}
	case *syntax.DeclClause:
		return !stmt.Negated, presumed
	case *syntax.BinaryCmd:
		if c.Op != syntax.AndStmt && c.Op != syntax.OrStmt {
			return false, unknown
		}
		x, sure := succeeds(s, st, src, c.X)
		if sure == unknown || sure == presumed && c.Op == syntax.OrStmt {
			return x, sure
		}
		if x == (c.Op == syntax.AndStmt) {
			y, also := succeeds(s, st, src, c.Y)
			return y, min(sure, also)
		}
		return x, sure
	}
	return false, unknown
}

// evalTest evaluates a comparison of strings.
func evalTest(s *shell, st *state, src source, words []*syntax.Word, bracket bool) (result, known bool) {
	var args []string
	for _, w := range words {
		f, _, err := s.fields(st.clone(), src, w)
		if err != nil || len(f) != 1 {
			return false, false
		}
		args = append(args, f[0])
	}
	if bracket {
		if len(args) == 0 || args[len(args)-1] != "]" {
			return false, false
		}
		args = args[:len(args)-1]
	}
	switch {
	case len(args) == 2 && args[0] == "-z":
		return args[1] == "", true
	case len(args) == 2 && args[0] == "-n":
		return args[1] != "", true
	case len(args) == 3 && (args[1] == "=" || args[1] == "==" && src.bash):
		return args[0] == args[2], true
	case len(args) == 3 && args[1] == "!=":
		return args[0] != args[2], true
	}
	return false, false
}

// holds runs a condition and tells its result.
func holds(s *shell, st *state, src source, cond []*syntax.Stmt) (result, known bool) {
	s.run(st, src, cond)
	if len(cond) == 0 || st.ended {
		return false, false
	}
	last := cond[len(cond)-1]
	if c, ok := last.Cmd.(*syntax.CallExpr); ok && len(c.Args) > 0 &&
		slices.Contains([]string{"true", ":", "false", "[", "test"}, c.Args[0].Lit()) {
		success, sure := succeeds(s, st, src, last)
		return success, sure == certain
	}
	return false, false
}

func runIf(s *shell, st *state, src source, c *syntax.IfClause) {
	if len(c.Cond) == 0 { // else
		s.run(st, src, c.Then)
		return
	}
	result, known := holds(s, st, src, c.Cond)
	if st.ended {
		return
	}
	why := src.line(c.Position.Line()).Errorf("what the condition of this line gives cannot be known from the text")
	switch {
	case known && result:
		s.run(st, src, c.Then)
	case known && c.Else != nil:
		runIf(s, st, src, c.Else)
	case known:
	default:
		yes, no := branch(s, st, src, why, c.Then...), st.clone()
		if c.Else != nil {
			if no.cond == nil {
				no.cond = why
			}
			runIf(s, no, src, c.Else)
		}
		st.merge(why, yes, no)
	}
}

func runWhile(s *shell, st *state, src source, c *syntax.WhileClause) {
	why := src.line(c.WhilePos.Line()).Errorf("how often the loop of this line is run cannot be known from the text")
	// What the body assigns may have any value at the beginning of a turn.
	loop := st.clone()
	forgetAssigned(s, loop, c, why)
	before := loop.clone()
	result, known := holds(s, loop, src, c.Cond)
	if !known || result == c.Until {
		if loop.cond == nil {
			loop.cond = why
		}
	}
	s.run(loop, src, c.Do)
	loop.ended = false
	st.merge(why, loop, before)
}

// changes reports whether arithmetic assigns a variable.
func changes(n *syntax.ArithmExp) (found bool) {
	syntax.Walk(n, func(n syntax.Node) bool {
		switch n := n.(type) {
		case *syntax.UnaryArithm:
			found = found || n.Op == syntax.Inc || n.Op == syntax.Dec
		case *syntax.BinaryArithm:
			op := n.Op.String()
			found = found || strings.HasSuffix(op, "=") && !slices.Contains([]string{"==", "!=", "<=", ">="}, op)
		}
		return true
	})
	return found
}

// forgetAssigned makes unknown what a node assigns.
func forgetAssigned(s *shell, st *state, n syntax.Node, why error) {
	syntax.Walk(n, func(n syntax.Node) bool {
		switch n := n.(type) {
		case *syntax.Assign:
			if n.Name != nil {
				st.set(n.Name.Value, value{err: why})
			}
		case *syntax.CallExpr:
			if len(n.Args) > 0 && slices.Contains([]string{
				"cd", "shift", "set", ".", "source", "eval", "read", "pushd", "popd", "unset",
			}, n.Args[0].Lit()) {
				st.all = why
			}
			if len(n.Args) > 0 {
				if _, ok := st.funcs[n.Args[0].Lit()]; ok {
					st.all = why
				}
			}
		case *syntax.ParamExp:
			if n.Exp != nil && n.Param != nil &&
				(n.Exp.Op == syntax.AssignUnset || n.Exp.Op == syntax.AssignUnsetOrNull) {
				st.set(n.Param.Value, value{err: why})
			}
		case *syntax.ForClause:
			if it, ok := n.Loop.(*syntax.WordIter); ok {
				st.set(it.Name.Value, value{err: why})
			}
		case *syntax.ArithmCmd, *syntax.LetClause:
			st.all = why
		case *syntax.ArithmExp:
			if changes(n) {
				st.all = why
			}
		}
		return true
	})
}

func runFor(s *shell, st *state, src source, c *syntax.ForClause) {
	why := src.line(c.ForPos.Line()).Errorf("what the loop of this line does cannot be known from the text")
	it, ok := c.Loop.(*syntax.WordIter)
	var turns []string
	if ok && !c.Select && leaves(c.Do) == nil && it.InPos.IsValid() {
		for _, w := range it.Items {
			f, _, err := s.fields(st, src, w)
			if err != nil {
				ok, why = false, err
				break
			}
			turns = append(turns, f...)
		}
	} else {
		ok = false
	}
	if !ok {
		b := st.clone()
		forgetAssigned(s, b, c, why)
		if it != nil && it.Name != nil {
			b.set(it.Name.Value, value{err: why})
		}
		before := b.clone()
		b = branch(s, b, src, why, c.Do...)
		b.ended = false
		st.merge(why, b, before)
		return
	}
	for _, turn := range turns {
		if st.ended {
			break
		}
		st.set(it.Name.Value, value{text: turn, set: true, at: src.of(it.Name)})
		s.run(st, src, c.Do)
	}
}

// leaves returns a break or continue among statements.
func leaves(stmts []*syntax.Stmt) (found syntax.Node) {
	for _, stmt := range stmts {
		syntax.Walk(stmt, func(n syntax.Node) bool {
			if c, ok := n.(*syntax.CallExpr); ok && len(c.Args) > 0 &&
				slices.Contains([]string{"break", "continue", "return", "eval"}, c.Args[0].Lit()) {
				found = c
			}
			return found == nil
		})
	}
	return found
}

func runCase(s *shell, st *state, src source, c *syntax.CaseClause) {
	why := src.line(c.Case.Line()).Errorf("which of the cases of this line is taken cannot be known from the text")
	subject, _, err := s.literal(st, src, c.Word)
	if err == nil {
		if item, known := choose(s, st, src, subject, c.Items); known {
			if item != nil {
				s.run(st, src, item.Stmts)
			}
			return
		}
	} else {
		why = err
	}
	ways := []*state{st.clone()}
	for _, item := range c.Items {
		ways = append(ways, branch(s, st, src, why, item.Stmts...))
	}
	st.merge(why, ways...)
}

// choose returns the case that fits a known subject.
func choose(s *shell, st *state, src source, subject string, items []*syntax.CaseItem) (*syntax.CaseItem, bool) {
	for _, item := range items {
		for _, p := range item.Patterns {
			e := s.expansion(st, src, p)
			text, err := expand.Pattern(e.config(), p)
			if e.done(err) != nil {
				return nil, false
			}
			expr, err := pattern.Regexp(text, pattern.EntireString)
			if err != nil {
				return nil, false
			}
			re, err := regexp.Compile(expr)
			if err != nil {
				return nil, false
			}
			if re.MatchString(subject) {
				return item, item.Op == syntax.Break
			}
		}
	}
	return nil, true
}
