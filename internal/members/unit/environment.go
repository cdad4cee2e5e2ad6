package unit

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/etcd-backupd/backupd/internal/members"
)

// variables reads an environment file by the rules of systemd.exec(5), which are not
// those of a shell: quotes count at the beginning of a value only, nothing is replaced
// in it, and a line without = is nothing. Where versions of systemd differ, the line is
// refused.
func variables(file string, raw []byte) (out []members.Variable, notes []members.Note, err error) {
	if i := strings.IndexByte(string(raw), 0); i >= 0 || !utf8.Valid(raw) {
		return nil, nil, members.Position{File: file}.Errorf("it is not a text in UTF-8")
	}
	r := reader{file: file, rest: string(raw), line: 1}
	for r.rest != "" {
		v, found, err := r.next()
		if err != nil {
			return nil, nil, err
		}
		if !found {
			continue
		}
		if !isVariable(v.Name) {
			notes = append(notes, members.Note{At: v.Value.At, Text: fmt.Sprintf(
				"%q is not the name of a variable: systemd ignores the line", v.Name)})
			continue
		}
		if out = set(out, v); len(out)+len(notes) > maxVariables {
			return nil, nil, v.Value.At.Errorf("there are more than %d variables", maxVariables)
		}
	}
	return out, notes, nil
}

// maxVariables is the largest number of variables in a file.
const maxVariables = 10_000

// set adds a variable, or replaces the one of its name.
func set(all []members.Variable, v members.Variable) []members.Variable {
	for i := range all {
		if all[i].Name == v.Name {
			all[i] = v
			return all
		}
	}
	return append(all, v)
}

func isVariable(name string) bool {
	for i, r := range name {
		letter := r == '_' || r >= 'A' && r <= 'Z' || r >= 'a' && r <= 'z'
		if !letter && (i == 0 || r < '0' || r > '9') {
			return false
		}
	}
	return name != ""
}

// reader is an environment file of which the rest is not yet read.
type reader struct {
	file, rest string
	line       int
}

func (r *reader) at() members.Position { return members.Position{File: r.file, Line: r.line} }

// take returns the next byte.
func (r *reader) take() byte {
	c := r.rest[0]
	r.rest = r.rest[1:]
	if c == '\n' {
		r.line++
	}
	return c
}

func isNewline(c byte) bool { return c == '\n' || c == '\r' }

// next reads an assignment, or something else to the end of its line.
func (r *reader) next() (v members.Variable, found bool, err error) {
	for r.rest != "" && strings.IndexByte(whitespace, r.rest[0]) >= 0 {
		r.take()
	}
	if r.rest == "" {
		return v, false, nil
	}
	at := r.at()
	end := strings.IndexAny(r.rest, "\r\n")
	if end < 0 {
		end = len(r.rest)
	}
	line := r.rest[:end]
	if strings.IndexByte(comments, line[0]) >= 0 {
		if strings.HasSuffix(line, `\`) && end < len(r.rest) {
			return v, false, at.Errorf("a comment ends in a backslash: to some versions of systemd the next line is part " +
				"of it")
		}
		r.rest = r.rest[end:]
		return v, false, nil
	}
	name, _, found := strings.Cut(line, "=")
	if !found {
		r.rest = r.rest[end:]
		return v, false, nil
	}
	r.rest = r.rest[len(name)+1:]
	value, err := r.value()
	return members.Variable{
		Name: strings.TrimRight(name, whitespace), Value: members.Word{Text: value, At: at},
	}, true, err
}

// value reads a value: pieces in quotes, and at last one without.
func (r *reader) value() (string, error) {
	var out strings.Builder
	for r.rest != "" {
		switch c := r.rest[0]; {
		case isNewline(c):
			r.take()
			return out.String(), nil
		case c == ' ' || c == '\t':
			r.take()
		case c == '\'':
			if err := r.single(&out); err != nil {
				return "", err
			}
		case c == '"':
			if err := r.double(&out); err != nil {
				return "", err
			}
		default:
			rest, err := r.plain()
			return out.String() + rest, err
		}
	}
	return out.String(), nil
}

// plain reads to the end of the line. A quote in it is nothing special; white space at
// its end is not part of it, unless a backslash precedes it.
func (r *reader) plain() (string, error) {
	var out []byte
	keep := 0
	for r.rest != "" {
		c := r.take()
		switch {
		case isNewline(c):
			return string(out[:keep]), nil
		case c == '\\' && r.rest == "":
			return string(out), nil
		case c == '\\' && r.rest[0] == '\r':
			return "", r.at().Errorf("with the line end of Windows systemd does not go on in the next line")
		case c == '\\':
			if c = r.take(); !isNewline(c) {
				out = append(out, c)
			}
			keep = len(out)
		default:
			out = append(out, c)
			if c != ' ' && c != '\t' {
				keep = len(out)
			}
		}
	}
	return string(out[:keep]), nil
}

func (r *reader) single(out *strings.Builder) error {
	at := r.at()
	r.take()
	for r.rest != "" {
		switch c := r.take(); c {
		case '\'':
			return nil
		case '\\':
			return r.at().Errorf("a backslash in single quotes: versions of systemd read it differently")
		default:
			out.WriteByte(c)
		}
	}
	return at.Errorf("a quote has no end")
}

func (r *reader) double(out *strings.Builder) error {
	at := r.at()
	r.take()
	for r.rest != "" {
		c := r.take()
		if c == '"' {
			return nil
		}
		if c == '\\' && r.rest != "" {
			switch c = r.take(); {
			case c == '\n':
				continue
			case strings.IndexByte("\"\\`$", c) < 0:
				return r.at().Errorf("the backslash before %q in double quotes: versions of systemd read it differently",
					string(c))
			}
		}
		out.WriteByte(c)
	}
	return at.Errorf("a quote has no end")
}
