package strict

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/etcd-backupd/backupd/internal/secret"
)

// Error lists all problems of a configuration that cannot be used.
type Error struct {
	Problems []Problem // in the order of the file; at least one
}

// Error lists all problems with their excerpts.
func (e *Error) Error() string {
	var b strings.Builder
	if n := len(e.Problems); n > 1 {
		fmt.Fprintf(&b, "%d problems in the configuration:\n", n)
	}
	for i, p := range e.Problems {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(p.String())
	}
	return b.String()
}

// Problem is one mistake and its place.
type Problem struct {
	File         string
	Line, Column int    // from 1; 0 if it is not about a line
	Path         string // of the key, as clusters[0].snapshot.schedule; may be empty
	Message      string // what is wrong and what to do
	Excerpt      string // the line and a caret below it; secrets are masked
	Missing      string // the file or the folder that is not there, if that is the mistake
}

// String returns the place and the message, with the excerpt below.
func (p Problem) String() string {
	var b strings.Builder
	b.WriteString(p.File)
	if p.Line > 0 {
		fmt.Fprintf(&b, ":%d:%d", p.Line, p.Column)
	}
	b.WriteString(": ")
	if p.Path != "" {
		b.WriteString(p.Path + ": ")
	}
	b.WriteString(p.Message)
	if p.Excerpt != "" {
		b.WriteString("\n" + p.Excerpt)
	}
	return b.String()
}

// Source is the text of a configuration, with the place of each value.
type Source struct {
	name  string
	lines []string
	at    map[string]place // by the path of the key
	masks map[int]int      // by line: the column from which an excerpt shows a mask
}

// place is the position of a value, and what happened to it.
type place struct {
	line, column int
	empty        bool // the text ""
	failed       bool // it could not be decoded
	// The text before and after variables of the environment were replaced; both
	// are empty if the value has none.
	written, expanded string
}

// lineBreaks replaces every line break that YAML knows by a newline.
var lineBreaks = strings.NewReplacer("\r\n", "\n", "\r", "\n", "\u0085", "\n", "\u2028", "\n", "\u2029", "\n")

func newSource(name, text string) *Source {
	return &Source{
		name: name, lines: strings.Split(lineBreaks.Replace(text), "\n"),
		at: map[string]place{}, masks: map[int]int{},
	}
}

// Given reports whether the file has a value at path.
func (s *Source) Given(path string) bool { return s.at[path].line > 0 && !s.at[path].empty }

// Usable reports whether the file has a value at path without a problem so far.
func (s *Source) Usable(path string) bool { return s.Given(path) && !s.at[path].failed }

// Failed reports whether there is a problem with the value at path.
func (s *Source) Failed(path string) bool { return s.at[path].failed }

// Line returns the line of the value at path, or 0 if the file has none.
func (s *Source) Line(path string) int { return s.at[path].line }

// Hide masks the value at path in excerpts: it may be a secret.
func (s *Source) Hide(path string) { s.hide(s.at[path].line, s.at[path].column) }

// hide masks a line from a column on.
func (s *Source) hide(line, column int) {
	if old, ok := s.masks[line]; !ok || column < old {
		s.masks[line] = column
	}
}

// Problem returns a problem of the value at path. If the file has no such value, its
// place is that of the nearest value around it.
func (s *Source) Problem(path, message string) Problem {
	if s == nil {
		return Problem{Path: path, Message: message}
	}
	at, around := s.at[path], path
	for at.line == 0 && around != "" {
		around = around[:max(0, strings.LastIndexAny(around, ".["))]
		at = s.at[around]
	}
	if len(at.expanded) >= shortestSecret {
		quoted := strings.Trim(fmt.Sprintf("%q", at.expanded), `"`)
		message = strings.ReplaceAll(strings.ReplaceAll(message, at.expanded, at.written), quoted, at.written)
	}
	return Problem{File: s.name, Line: at.line, Column: at.column, Path: path, Message: message}
}

// shortestSecret is the length from which on a text from the environment is kept out
// of messages. Shorter texts are not secrets, and are parts of many words.
const shortestSecret = 4

// Finish sorts the problems and adds the excerpts. It must come last, when all masks
// are known.
func (s *Source) Finish(problems []Problem) error {
	if len(problems) == 0 {
		return nil
	}
	slices.SortStableFunc(problems, func(a, b Problem) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	problems = slices.Compact(problems)
	more := len(problems) - maxProblems
	problems = problems[:min(len(problems), maxProblems)]
	for i := range problems {
		problems[i].Excerpt = s.excerpt(problems[i].Line, problems[i].Column)
	}
	if more > 0 {
		problems = append(problems, Problem{File: problems[0].File, Message: fmt.Sprintf("and %d more", more)})
	}
	return &Error{problems}
}

// maxProblems is how many problems are reported. Nobody reads more.
const maxProblems = 100

// excerptWidth is how much of a line is shown.
const excerptWidth = 100

func (s *Source) excerpt(line, column int) string {
	if s == nil || line < 1 || line > len(s.lines) || column < 1 {
		return ""
	}
	text := []rune(strings.ToValidUTF8(s.lines[line-1], string(utf8.RuneError)))
	column = min(column, len(text)+1)
	if from, ok := s.masks[line]; ok && from <= len(text) {
		text = append(text[:from-1:from-1], []rune(secret.Mask)...)
	}
	start := 0
	if column > excerptWidth {
		start = column - excerptWidth/2
	}
	end := min(len(text), start+excerptWidth)
	shown := text[min(start, end):end]
	for i, r := range shown {
		if !unicode.IsPrint(r) {
			shown[i] = ' '
		}
	}
	gutter := fmt.Sprintf("%5d | ", line)
	return fmt.Sprintf("%s%s\n%s| %s^", gutter, string(shown),
		strings.Repeat(" ", len(gutter)-2), strings.Repeat(" ", column-1-start))
}
