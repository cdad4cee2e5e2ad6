package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v4"
)

// maxBytes is the largest size of a file. 50 clusters take about 30 KiB.
const maxBytes = 1 << 20

// Load reads the file at path, with the environment of this process. Every problem
// is in the returned [*Error], even that the file cannot be read.
func Load(path string) (*Config, error) {
	raw, err := readFile(path, maxBytes)
	if err != nil {
		return nil, &Error{[]Problem{{File: path, Message: err.Error()}}}
	}
	return Parse(path, raw, os.LookupEnv)
}

// readFile reads a file of at most limit bytes. Errors do not repeat the path.
func readFile(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, withoutPath(err)
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, withoutPath(err)
	}
	if int64(len(raw)) > limit {
		return nil, fmt.Errorf("the file has more than %d bytes", limit)
	}
	return raw, nil
}

// withoutPath turns "open PATH: no such file" into "open: no such file".
func withoutPath(err error) error {
	var pathErr *os.PathError
	if errors.As(err, &pathErr) {
		return fmt.Errorf("%s: %w", pathErr.Op, pathErr.Err)
	}
	return err
}

// Parse parses and checks the text of a file called name. It looks up variables
// with lookupEnv. It reads no file; [Config.CheckFiles] checks the files that the
// configuration names. The error is an [*Error].
func Parse(name string, raw []byte, lookupEnv func(string) (string, bool)) (*Config, error) {
	raw = bytes.TrimPrefix(raw, []byte("\ufeff"))
	src := newSource(name, string(raw))
	root, problem := parseYAML(src, raw)
	if problem != nil {
		return nil, src.finish([]Problem{*problem})
	}
	d := &decoder{source: src, lookup: lookupEnv}
	c := &Config{source: src}
	d.decode(root, reflect.ValueOf(c).Elem(), "")
	if d.values <= maxValues {
		check(d, c)
	}
	if err := src.finish(d.problems); err != nil {
		return nil, err
	}
	return c, nil
}

// parseYAML returns the root of the one document.
func parseYAML(src *source, raw []byte) (*yaml.Node, *Problem) {
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
		return nil, at(0, 0, "the file is empty: 'backupd config example' prints one to begin with")
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
func checkText(src *source, raw []byte) (line, column int, message string) {
	if len(raw) > maxBytes {
		return 0, 0, fmt.Sprintf("the file has more than %d bytes", maxBytes)
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
func syntaxProblem(src *source, err error) *Problem {
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

func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
