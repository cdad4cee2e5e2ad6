// Package strict reads YAML into Go values and takes nothing that it does not know:
// an unknown key, a key that comes twice, a value of another type and more are
// mistakes. It reports all of them at once, each with its place and the line of the
// file, in which secrets are masked.
//
// Tags of the fields say what a key is: yaml is its name, default its value if it is
// not given, required that it must be given, oneof the words that it may have, and
// min its least number. A value may hold ${NAME}, a variable of the environment.
package strict

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// MaxBytes is the largest size of a file.
const MaxBytes = 1 << 20

// ErrEmpty is returned for a file without a value.
var ErrEmpty = errors.New("the file is empty")

// Decode reads the text of a file called name into what the pointer v points to. It
// looks up variables of the environment with lookup. The error is [ErrEmpty], or an
// [*Error] if the text is not even YAML. All other mistakes are in the decoder: the
// caller adds its own, and must then call [Decoder.Err].
func Decode(name string, raw []byte, lookup func(string) (string, bool), v any) (*Decoder, error) {
	raw = bytes.TrimPrefix(raw, []byte("\ufeff"))
	src := newSource(name, string(raw))
	root, problem := parseYAML(src, raw)
	if problem != nil {
		return nil, src.Finish([]Problem{*problem})
	}
	if root == nil {
		return nil, ErrEmpty
	}
	d := &Decoder{Source: src, lookup: lookup}
	into := reflect.ValueOf(v).Elem()
	d.decode(root, into, "")
	if d.values > maxValues {
		return nil, d.Err()
	}
	d.checkMinima(into, "")
	return d, nil
}

// parseYAML returns the root of the one document, or nil for an empty file.
func parseYAML(src *Source, raw []byte) (*yaml.Node, *Problem) {
	at := func(line, column int, message string) *Problem {
		return &Problem{File: src.name, Line: line, Column: column, Message: message}
	}
	if line, column, message := checkText(src, raw); message != "" {
		return nil, at(line, column, message)
	}
	loader, err := yaml.NewLoader(bytes.NewReader(raw))
	if err != nil {
		return nil, at(0, 0, err.Error())
	}
	var doc, more yaml.Node
	err = loader.Load(&doc)
	switch {
	case errors.Is(err, io.EOF), err == nil && len(doc.Content) == 1 &&
		doc.Content[0].ShortTag() == "!!null" && doc.Content[0].Value == "":
		return nil, nil
	case err != nil:
		return nil, syntaxProblem(src, err)
	}
	switch err := loader.Load(&more); {
	case err == nil:
		return nil, at(more.Line, max(1, more.Column), "a second YAML document begins here: the file must hold one")
	case !errors.Is(err, io.EOF):
		return nil, syntaxProblem(src, err)
	}
	return doc.Content[0], nil
}

// checkText finds characters that YAML does not allow. The parser does not say
// where they are.
func checkText(src *Source, raw []byte) (line, column int, message string) {
	if len(raw) > MaxBytes {
		return 0, 0, fmt.Sprintf("the file has more than %d bytes", MaxBytes)
	}
	for i, text := range src.lines {
		n := 0
		for len(text) > 0 {
			r, size := utf8.DecodeRuneInString(text)
			n++
			switch {
			case r == utf8.RuneError && size == 1:
				return i + 1, n, "the file must be UTF-8: this byte is not"
			case r < ' ' && r != '\t' || r == 0x7f:
				return i + 1, n, fmt.Sprintf("the file must not hold the control character %U", r)
			}
			text = text[size:]
		}
	}
	return 0, 0, ""
}

// secretLine matches a line whose value may be a secret, secretBelow one whose
// value is in the next line.
var (
	secretLine  = regexp.MustCompile(`(?i)(?:url|password|passwd|token|secret|credentials?|key|template)["']?\s*:`)
	secretBelow = regexp.MustCompile(secretLine.String() + `[ |>+-]*\r?$`)
)

// syntaxProblem explains the parser's error. The values of the file are not known
// at this point, so the excerpt hides a value whose key suggests a secret.
func syntaxProblem(src *Source, err error) *Problem {
	p := &Problem{File: src.name, Message: err.Error()}
	var e *yaml.LoadError
	if !errors.As(err, &e) {
		return p
	}
	mark, message := e.Mark, e.Message
	switch {
	case strings.Contains(message, "unknown anchor"):
		message = "a value that begins with * is an alias, and there is no anchor of this name: put quotes around " +
			"the text"
		src.hide(mark.Line, mark.Column)
	case mark.Line > len(src.lines) || strings.Contains(message, "end of stream"):
		// The end of the file says little. Point to the part that was not closed.
		if e.ContextMsg != "" {
			message += " (" + e.ContextMsg + ")"
		}
		if mark = e.ContextMark; mark.Line < 1 || mark.Line > len(src.lines) {
			mark.Line, mark.Column = len(src.lines), utf8.RuneCountInString(src.lines[len(src.lines)-1])+1
		}
	case e.ContextMsg != "" && e.ContextMark.Line > 0 && e.ContextMark.Line != mark.Line:
		message += fmt.Sprintf(" (%s that begins in line %d)", e.ContextMsg, e.ContextMark.Line)
	}
	p.Line, p.Column, p.Message = mark.Line, max(1, mark.Column), "not YAML: "+message
	if p.Line < 1 || p.Line > len(src.lines) {
		return p
	}
	text := src.lines[p.Line-1]
	if p.Line > 1 && secretBelow.MatchString(src.lines[p.Line-2]) {
		src.hide(p.Line, 1)
	}
	if rest := strings.TrimLeft(text, " "); strings.HasPrefix(rest, "\t") {
		p.Column = len(text) - len(rest) + 1
		p.Message = "not YAML: the line is indented by a tab: use spaces"
	}
	if m := secretLine.FindStringIndex(text); m != nil {
		src.hide(p.Line, utf8.RuneCountInString(text[:m[1]])+2)
	}
	return p
}
