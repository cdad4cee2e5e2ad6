package shell

import (
	"path"
	"regexp"
	"slices"
	"strings"

	"mvdan.cc/sh/v3/expand"
	"mvdan.cc/sh/v3/syntax"

	"github.com/etcd-backupd/backupd/internal/members"
)

// call is a command whose words are expanded.
type call struct {
	words []members.Word
	err   error // why one of the words cannot be known
	notes []members.Note
	stdin *members.Word // a here-document
	inErr error         // why it cannot be known
	lines []int         // of stdin
	exec  bool
	at    members.Position
}

// call expands and runs a simple command.
func (s *shell) call(st *state, src source, stmt *syntax.Stmt, c *syntax.CallExpr) {
	if len(c.Args) == 0 {
		for _, a := range c.Assigns {
			assign(s, st, src, a)
		}
		redirect(s, st, src, stmt, nil)
		return
	}
	out := call{at: src.of(c)}
	for _, w := range c.Args {
		fields, notes, err := s.fields(st, src, w)
		if err != nil {
			if out.err == nil {
				out.err = err
			}
			fields = []string{src.raw(w)}
		}
		out.notes = append(out.notes, notes...)
		for _, f := range fields {
			out.words = append(out.words, members.Word{Text: f, At: src.of(w)})
		}
	}
	if len(out.words) == 0 { // $EMPTY
		for _, a := range c.Assigns {
			assign(s, st, src, a)
		}
		return
	}
	if st.input != nil {
		out.stdin, out.lines, out.inErr = st.input.stdin, st.input.lines, st.input.inErr
	}
	redirect(s, st, src, stmt, &out)
	if len(c.Assigns) == 0 {
		dispatch(s, st, src, out)
		return
	}
	// X=y cmd: X is cmd's alone.
	own := st.clone()
	own.export = true
	for _, a := range c.Assigns {
		assign(s, own, src, a)
	}
	own.export = st.export
	dispatch(s, own, src, out)
	if own.ended {
		st.ended = true
	}
	if own.all != nil {
		st.all = own.all
	}
	if own.dir.Text != st.dir.Text {
		st.dir, st.dirErr = own.dir, own.dirErr
	}
	if assigning(out.words[0].Text) {
		st.all = src.of(c).Errorf("%s with a variable before it is not understood", out.words[0].Text)
	}
}

// assigning are the builtins that assign variables.
func assigning(name string) bool {
	return slices.Contains([]string{
		"export", "readonly", "local", "declare", "typeset", "unset", "read", "set", "shift", "eval", ".", "source",
		"printf", "getopts", "mapfile", "readarray", "command", "builtin", "alias", ":",
	}, name)
}

// assign is X=y in the shell itself.
func assign(s *shell, st *state, src source, a *syntax.Assign) {
	if a.Name == nil {
		return
	}
	name, at := a.Name.Value, src.of(a)
	old := s.lookup(st, name, src, at)
	v := value{set: true, at: at}
	switch {
	case a.Index != nil || a.Append && !src.bash:
		v.err = at.Errorf("%s is not understood in sh and in bash alike", brief(src.raw(a)))
	case a.Array != nil:
		v.array = true
		for _, elem := range a.Array.Elems {
			if elem.Index != nil || elem.Value == nil {
				v.err = at.Errorf("%s is not understood", brief(src.raw(a)))
				break
			}
			fields, _, err := s.fields(st, src, elem.Value)
			if err != nil {
				v.err = err
				break
			}
			v.list = append(v.list, fields...)
		}
		if a.Append && (old.array || !old.set) {
			v.list = append(slices.Clone(old.list), v.list...)
		} else if a.Append {
			v.list = append([]string{old.text}, v.list...)
		}
	default:
		v.text, _, v.err = s.literal(st, src, a.Value)
		if old.array {
			v.err = at.Errorf("%s is an array: this is not understood", name)
		}
		if a.Append {
			v.text = old.text + v.text
		}
		if len(v.text) > members.MaxValueBytes && v.err == nil {
			v.text, v.err = "", at.Errorf("the value of %s gets too long to be followed", name)
		}
	}
	if a.Append && v.err == nil && old.err != nil {
		v.err = old.err
	}
	st.set(name, v)
}

// declare is export X=y and the like.
func declare(s *shell, st *state, src source, c *syntax.DeclClause) {
	for _, a := range c.Args {
		at := src.of(a)
		if a.Name == nil {
			if word := ""; a.Value != nil {
				word = a.Value.Lit()
				if slices.Contains([]string{"-r", "-g", "-x", "-gx", "-rx"}, word) && c.Variant.Value != "export" {
					if strings.Contains(word, "x") {
						st.all = at.Errorf("%s is not understood", brief(src.raw(c)))
					}
					continue
				}
				if word == "--" || word == "-p" || word == "-a" {
					continue
				}
			}
			forget(s, st, src, c, at.Errorf("%s is not understood", brief(src.raw(c))))
			return
		}
		name := a.Name.Value
		if a.Naked && a.Value == nil && a.Array == nil {
			v := s.lookup(st, name, src, at)
			switch {
			case c.Variant.Value == "export": // a later value, too
				v.exported = true
				st.vars[name] = v
			case c.Variant.Value == "readonly":
			default: // local X, declare X: unset, if it is not there
				st.vars[name] = value{err: at.Errorf("%s has no value here", name), exported: v.exported}
			}
			continue
		}
		assign(s, st, src, a)
		v := st.vars[name]
		// sh splits the value of an unquoted variable here, bash does not.
		if !src.bash && v.err == nil && strings.ContainsAny(v.text, " \t\n*?[") && unquoted(a.Value) {
			v.err = at.Errorf("%s is not the same in sh and in bash", brief(src.raw(a)))
		}
		v.exported = v.exported || c.Variant.Value == "export"
		st.vars[name] = v
	}
}

// unquoted reports whether a word has an expansion outside of quotes.
func unquoted(w *syntax.Word) bool {
	return w != nil && slices.ContainsFunc(w.Parts, func(p syntax.WordPart) bool {
		switch p.(type) {
		case *syntax.ParamExp, *syntax.CmdSubst, *syntax.ArithmExp:
			return true
		}
		return false
	})
}

// redirect looks at the files that a statement writes, and at the here-document that its
// command reads.
func redirect(s *shell, st *state, src source, stmt *syntax.Stmt, c *call) {
	var doc *members.Word
	var docLines []int
	var docErr error
	for _, r := range stmt.Redirs {
		if r.Op == syntax.Hdoc || r.Op == syntax.DashHdoc {
			doc, docLines, docErr = hereDocument(s, st, src, r)
		}
	}
	if c != nil && doc != nil {
		c.stdin, c.lines, c.inErr = doc, docLines, docErr
	}
	for _, r := range stmt.Redirs {
		if r.N != nil && r.N.Value != "1" || r.Word == nil {
			continue
		}
		switch r.Op {
		case syntax.RdrOut, syntax.AppOut, syntax.RdrClob, syntax.RdrAll, syntax.AppAll, syntax.RdrInOut:
		default:
			continue
		}
		name, _, err := s.literal(st, src, r.Word)
		if err != nil || name == "" || name == "/dev/null" {
			continue
		}
		f := &file{path: st.file(name), err: src.of(stmt).Errorf("what %s is after this line cannot be known", name)}
		if c != nil && path.Base(c.words[0].Text) == "cat" && len(c.words) == 1 && doc != nil &&
			(r.Op == syntax.RdrOut || r.Op == syntax.RdrClob) && st.cond == nil {
			f.text, f.lines, f.err = *doc, docLines, docErr
		}
		s.files[f.path] = f
	}
}

// file is one that the script writes.
type file struct {
	path  string
	text  members.Word
	lines []int
	err   error
	used  bool // the script runs it
}

// written returns the files that the script does not run itself.
func (s *shell) written() []File {
	var out []File
	for _, f := range s.files {
		if !f.used {
			out = append(out, File{f.path, f.text, f.err})
		}
	}
	slices.SortFunc(out, func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	return out
}

// indented is the beginning of a line in <<-EOF.
var indented = regexp.MustCompile("\n\t+")

// hereDocument is the text of one, and the lines on which its lines are written.
func hereDocument(s *shell, st *state, src source, r *syntax.Redirect) (*members.Word, []int, error) {
	body := r.Hdoc
	if body == nil {
		return &members.Word{At: src.line(r.OpPos.Line() + 1)}, nil, nil
	}
	at := src.of(body)
	if !body.Pos().IsValid() {
		at = src.line(r.OpPos.Line() + 1)
	}
	word, lits := &syntax.Word{}, ""
	for i, p := range body.Parts {
		if l, ok := p.(*syntax.Lit); ok {
			text := l.Value
			if r.Op == syntax.DashHdoc {
				text = indented.ReplaceAllString(text, "\n")
				if i == 0 {
					text = strings.TrimLeft(text, "\t")
				}
			}
			p, lits = &syntax.Lit{ValuePos: l.ValuePos, ValueEnd: l.ValueEnd, Value: text}, lits+text
		}
		word.Parts = append(word.Parts, p)
	}
	if r.Word.Lit() != src.raw(r.Word) { // it is quoted: the text is as it is written
		if slices.ContainsFunc(body.Parts, func(p syntax.WordPart) bool { _, ok := p.(*syntax.Lit); return !ok }) {
			return &members.Word{At: at}, nil, at.Errorf("a here-document that ends with %s is not understood",
				brief(src.raw(r.Word)))
		}
		return &members.Word{Text: lits, At: at}, nil, nil
	}
	e := s.expansion(st, src, body)
	text, err := expand.Document(e.config(), word)
	s.expanded += len(text)
	e.grow(0)
	w := &members.Word{Text: text, At: at}
	// A line that ends in a backslash is joined with the next one here, unless the
	// delimiter is quoted.
	var on []int
	if written := src.raw(body); strings.Count(text, "\n") < strings.Count(written, "\n") {
		line, joined := 0, strings.Split(written, "\n")
		for range strings.Split(text, "\n") {
			on = append(on, src.line(body.Pos().Line()+uint(line)).Line)
			for line < len(joined) && strings.HasSuffix(joined[line], `\`) {
				line++
			}
			line++
		}
	}
	return w, on, e.done(err)
}
