package unit

import (
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/etcd-backupd/backupd/internal/members"
)

// text is a piece of a file of which every byte knows its line.
type text struct {
	s     string
	lines []int
	file  string
	ends  bool // a semicolon that ends a command
	odd   bool // an escape in it is not known
}

func (t text) sub(from, to int) text {
	return text{s: t.s[from:to], lines: t.lines[from:to], file: t.file}
}

func (t text) trim() text {
	left := len(t.s) - len(strings.TrimLeft(t.s, whitespace))
	right := len(strings.TrimRight(t.s, whitespace))
	if right < left {
		right = left
	}
	return t.sub(left, right)
}

// at is the position of its first byte.
func (t text) at() members.Position { return t.atByte(0) }

func (t text) atByte(i int) members.Position {
	p := members.Position{File: t.file}
	if i >= len(t.lines) {
		i = len(t.lines) - 1
	}
	if i >= 0 {
		p.Line = t.lines[i]
	}
	return p
}

// whitespace is what separates words, comments what a line of a comment begins with.
const (
	whitespace = " \t\n\r"
	comments   = "#;"
)

// assignment is a line NAME=VALUE in a section.
type assignment struct {
	section, name string
	at            members.Position
	value         text
}

// assignments reads a unit by the rules of systemd.syntax(7): a line that ends in a
// backslash goes on in the next that is no comment, with a space for the backslash.
func assignments(file, raw string) ([]assignment, error) {
	var out []assignment
	var section string
	for _, l := range logical(file, raw) {
		l = l.trim()
		switch {
		case l.s == "":
		case l.s[0] == '[':
			if !strings.HasSuffix(l.s, "]") {
				return nil, l.at().Errorf("it begins with [ and is not the head of a section")
			}
			section = l.s[1 : len(l.s)-1]
		default:
			name, _, found := strings.Cut(l.s, "=")
			if name = strings.Trim(name, whitespace); !found || !isDirective(name) {
				return nil, l.at().Errorf("this is no setting of a unit: is the end of the line before it right?")
			}
			i := strings.IndexByte(l.s, '=') + 1
			a := assignment{section, name, l.at(), l.sub(i, len(l.s)).trim()}
			if a.value.file == "" || len(a.value.lines) == 0 {
				a.value.file = file
			}
			out = append(out, a)
		}
	}
	return out, nil
}

func isDirective(name string) bool {
	for i, r := range name {
		letter := r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z'
		if !letter && (i == 0 || r != '-' && (r < '0' || r > '9')) {
			return false
		}
	}
	return name != ""
}

// logical returns the lines after their continuations are joined, without comments.
func logical(file, raw string) []text {
	raw = strings.TrimPrefix(raw, "\ufeff")
	raw = strings.ReplaceAll(raw, "\r\n", "\n")
	var out []text
	var pending []byte // what goes on in the next line
	var on []int
	for i, l := range strings.Split(raw, "\n") {
		if first := strings.TrimLeft(l, whitespace); first != "" && strings.ContainsRune(comments, rune(first[0])) {
			continue
		}
		before := len(pending)
		pending = append(pending, l...)
		for range len(l) {
			on = append(on, i+1)
		}
		if goesOn(string(pending[before:])) {
			pending[len(pending)-1] = ' '
			continue
		}
		out = append(out, text{file: file, s: string(pending), lines: on})
		pending, on = nil, nil
	}
	if pending != nil {
		out = append(out, text{file: file, s: string(pending), lines: on})
	}
	return out
}

// goesOn is true for a line that ends in a backslash which no other one escapes.
func goesOn(s string) bool {
	return (len(s)-len(strings.TrimRight(s, `\`)))%2 == 1
}

// literal doubles each backslash, so that none begins an escape.
func (t text) literal() text {
	out := text{file: t.file}
	for i := range len(t.s) {
		n := 1
		if t.s[i] == '\\' {
			n = 2
		}
		for range n {
			out.s += t.s[i : i+1]
			out.lines = append(out.lines, t.lines[i])
		}
	}
	return out
}

// words splits a value as systemd does: words are separated by white space, quotes keep it
// in, and a backslash begins an escape of C. An escape that is not known stays as it is.
func words(t text) ([]text, error) {
	var out []text
	for {
		t = t.trim()
		if t.s == "" {
			return out, nil
		}
		if out != nil && strings.HasPrefix(t.s, `\;`) && (len(t.s) == 2 || strings.ContainsRune(whitespace, rune(t.s[2]))) {
			out = append(out, t.sub(1, 2))
			t = t.sub(2, len(t.s))
			continue
		}
		w, used, err := firstWord(t)
		if err != nil {
			return nil, err
		}
		w.ends = t.s[:used] == ";"
		out = append(out, w)
		t = t.sub(used, len(t.s))
	}
}

func firstWord(t text) (w text, used int, err error) {
	w.file = t.file
	var quote byte
	var out []byte
	defer func() { w.s = string(out) }()
	add := func(s string, i int) {
		out = append(out, s...)
		for range len(s) {
			w.lines = append(w.lines, t.lines[i])
		}
	}
	i := 0
	for ; i < len(t.s); i++ {
		switch c := t.s[i]; {
		case c == '\\':
			s, n := escape(t.s[i+1:])
			if n == 0 && i+1 == len(t.s) && quote != 0 {
				return w, 0, t.at().Errorf("a quote has no end")
			}
			if n == 0 {
				s = t.s[i:min(i+2, len(t.s))]
				n = len(s) - 1
				w.odd = true
			}
			add(s, i)
			i += n
		case c == quote:
			quote = 0
		case quote != 0:
			add(t.s[i:i+1], i)
		case c == '"' || c == '\'':
			quote = c
		case strings.IndexByte(whitespace, c) >= 0:
			return startsAt(w, t), i, nil
		default:
			add(t.s[i:i+1], i)
		}
	}
	if quote != 0 {
		return w, 0, t.at().Errorf("a quote has no end")
	}
	return startsAt(w, t), i, nil
}

// startsAt gives an empty word its line.
func startsAt(w, t text) text {
	if len(w.lines) == 0 {
		w.lines = t.lines[:1:1]
	}
	return w
}

var simple = map[byte]string{
	'a': "\a", 'b': "\b", 'f': "\f", 'n': "\n", 'r': "\r", 't': "\t", 'v': "\v", '\\': `\`, '"': `"`, '\'': "'", 's': " ",
}

// escape reads an escape of C after its backslash. It returns 0 for what is none.
func escape(s string) (out string, used int) {
	if s == "" {
		return "", 0
	}
	if plain, ok := simple[s[0]]; ok {
		return plain, 1
	}
	number := func(from, digits, base int) (uint64, bool) {
		if len(s) < from+digits || strings.ContainsAny(s[from:from+digits], "_+-") {
			return 0, false
		}
		n, err := strconv.ParseUint(s[from:from+digits], base, 32)
		return n, err == nil && n != 0
	}
	switch s[0] {
	case 'x':
		if n, ok := number(1, 2, 16); ok {
			return string([]byte{byte(n)}), 3
		}
	case 'u':
		if n, ok := number(1, 4, 16); ok {
			return string(rune(n)), 5
		}
	case 'U':
		if n, ok := number(1, 8, 16); ok && n <= utf8.MaxRune {
			return string(rune(n)), 9
		}
	default:
		if n, ok := number(0, 3, 8); ok && n <= 255 {
			return string([]byte{byte(n)}), 3
		}
	}
	return "", 0
}
