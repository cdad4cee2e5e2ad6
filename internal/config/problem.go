package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Error is a configuration that cannot be used, with everything that is wrong.
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

// Problem is one thing that is wrong, and where.
type Problem struct {
	File         string
	Line, Column int    // from 1; 0 where it is about no line
	Path         string // of the key, as clusters[0].snapshot.schedule; may be empty
	Message      string // what is wrong and what to do
	Excerpt      string // the line and a caret below it; secrets are masked
}

// String returns where and what, and the excerpt below.
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

// source is the text a configuration was parsed from, and where in it each
// value stands.
type source struct {
	name  string
	lines []string
	at    map[string]place // by the path of the key
	masks map[int]int      // by line: the column from which an excerpt shows a mask
}

// place is where a value stands.
type place struct {
	line, column int
	empty        bool // the text ""
	failed       bool // it could not be decoded
	// Where the environment took part, what was written and what came of it.
	written, expanded string
}

// lineBreaks are what YAML counts lines by.
var lineBreaks = strings.NewReplacer("\r\n", "\n", "\r", "\n", "\u0085", "\n", "\u2028", "\n", "\u2029", "\n")

func newSource(name, text string) *source {
	return &source{name: name, lines: strings.Split(lineBreaks.Replace(text), "\n"), at: map[string]place{}, masks: map[int]int{}}
}

// hide masks what stands from a column of a line on.
func (s *source) hide(line, column int) {
	if old, ok := s.masks[line]; !ok || column < old {
		s.masks[line] = column
	}
}

// problem says what is wrong with the value at path, or, where it is not
// there, with the nearest thing around it that is.
func (s *source) problem(path, message string) Problem {
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

// shortestSecret is the length from which on what came from the environment is
// kept out of messages. Shorter texts are no secrets, but parts of many words.
const shortestSecret = 4

// finish puts problems in order and adds the excerpts, which must wait until
// everything that is to be masked is known.
func (s *source) finish(problems []Problem) error {
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

// maxProblems is how many are told. Nobody reads more.
const maxProblems = 100

// excerptWidth bounds what is shown of a line.
const excerptWidth = 100

func (s *source) excerpt(line, column int) string {
	if s == nil || line < 1 || line > len(s.lines) || column < 1 {
		return ""
	}
	text := []rune(strings.ToValidUTF8(s.lines[line-1], string(utf8.RuneError)))
	column = min(column, len(text)+1)
	if from, ok := s.masks[line]; ok && from <= len(text) {
		text = append(text[:from-1:from-1], []rune(mask)...)
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
	return fmt.Sprintf("%s%s\n%s| %s^", gutter, string(shown), strings.Repeat(" ", len(gutter)-2), strings.Repeat(" ", column-1-start))
}
