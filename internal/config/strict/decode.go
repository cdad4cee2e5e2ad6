package strict

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"github.com/agnivade/levenshtein"
	"go.yaml.in/yaml/v4"
)

// maxValues is the largest number of values in a file, with aliases followed.
const maxValues = 200_000

// Decoder turns YAML nodes into Go values. It goes on after a mistake, so that all
// mistakes are reported at once.
type Decoder struct {
	*Source
	lookup   func(string) (string, bool)
	values   int
	problems []Problem
}

// Add reports a problem with the value at path.
func (d *Decoder) Add(path, format string, args ...any) {
	d.problems = append(d.problems, d.Problem(path, fmt.Sprintf(format, args...)))
	at := d.at[path]
	at.failed = true
	d.at[path] = at
}

// Reported reports whether a problem was added whose path begins with prefix.
func (d *Decoder) Reported(prefix string) bool {
	return slices.ContainsFunc(d.problems, func(p Problem) bool { return strings.HasPrefix(p.Path, prefix) })
}

// Drop forgets problems that are nothing to the caller.
func (d *Decoder) Drop(forget func(Problem) bool) { d.problems = slices.DeleteFunc(d.problems, forget) }

// Err returns all problems as an [*Error], or nil. It must come last.
func (d *Decoder) Err() error { return d.Finish(d.problems) }

// addAt reports a problem at a node that is not a value of a known key, such as an
// unknown key.
func (d *Decoder) addAt(n *yaml.Node, path, format string, args ...any) {
	d.problems = append(d.problems, Problem{
		File: d.name, Line: n.Line, Column: n.Column, Path: path, Message: fmt.Sprintf(format, args...),
	})
}

// decode fills v from n.
func (d *Decoder) decode(n *yaml.Node, v reflect.Value, path string) {
	d.at[path] = place{line: n.Line, column: n.Column}
	if v.Type() == secretType {
		d.hide(n.Line, n.Column)
	}
	if n.Kind == yaml.AliasNode {
		n = n.Alias
	}
	if d.values++; d.values > maxValues {
		if d.values == maxValues+1 {
			d.Add(path, "the file holds too many values")
		}
		return
	}
	switch {
	case n.Style&yaml.TaggedStyle != 0:
		d.Add(path, "YAML tags such as %s are not allowed", n.Tag)
		return
	case n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null":
		d.Add(path, "has no value: give it one, or remove the key")
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		d.decode(n, v.Elem(), path)
	case reflect.Struct:
		d.decodeStruct(n, v, path)
	case reflect.Map:
		d.decodeMap(n, v, path)
	case reflect.Slice:
		d.decodeSlice(n, v, path)
	default:
		d.decodeScalar(n, v, path)
	}
}

// is reports whether n is of the wanted kind, and adds a problem if not.
func (d *Decoder) is(n *yaml.Node, kind yaml.Kind, want, path string) bool {
	if n.Kind == kind {
		return true
	}
	// The value in place of a section may be a secret.
	at := d.at[path]
	d.hide(at.line, at.column)
	got := map[yaml.Kind]string{
		yaml.ScalarNode: "a single value", yaml.MappingNode: "a section with keys", yaml.SequenceNode: "a list",
	}[n.Kind]
	d.Add(path, "want %s, not %s", want, got)
	return false
}

func (d *Decoder) decodeStruct(n *yaml.Node, v reflect.Value, path string) {
	setDefaults(v)
	if !d.is(n, yaml.MappingNode, "a section with keys", path) {
		return
	}
	all, fields := keyFields(v.Type()), map[string]reflect.StructField{}
	for _, f := range all {
		fields[f.Tag.Get("yaml")] = f
	}
	for key, value := range d.pairs(n, path) {
		f, ok := fields[key.Value]
		if !ok {
			d.hide(value.Line, value.Column)
			d.addAt(key, path, "unknown key %q%s", key.Value, DidYouMean(key.Value, slices.Sorted(maps.Keys(fields))))
			continue
		}
		field := join(path, key.Value)
		target := v.FieldByIndex(f.Index)
		d.decode(value, target, field)
		if text, ok := f.Tag.Lookup("default"); ok && d.at[field].empty {
			setDefault(f.Name, target, text)
		}
		d.checkChoice(f, target, field)
	}
	for _, f := range all {
		if f.Tag.Get("required") == "" {
			continue
		}
		field := join(path, f.Tag.Get("yaml"))
		switch at := d.at[field]; {
		case at.line == 0:
			d.Add(field, "is missing")
		case !at.failed && f.Type.Kind() != reflect.Struct && v.FieldByIndex(f.Index).Len() == 0:
			d.Add(field, "must not be empty")
		}
	}
}

// keyFields returns the fields of a struct that are keys of the file, those of
// embedded structs among them.
func keyFields(t reflect.Type) []reflect.StructField {
	var out []reflect.StructField
	for _, f := range reflect.VisibleFields(t) {
		if f.Tag.Get("yaml") != "" {
			out = append(out, f)
		}
	}
	return out
}

// checkChoice compares values with those that the field's tag allows.
func (d *Decoder) checkChoice(f reflect.StructField, v reflect.Value, path string) {
	choices := strings.Fields(f.Tag.Get("oneof"))
	if len(choices) == 0 {
		return
	}
	check := func(text, path string) {
		if !slices.Contains(choices, text) && text != "" {
			d.Add(path, "%q is not known: want %s%s", text, OrList(choices), Suggestion(text, choices))
		}
	}
	if v.Kind() == reflect.String {
		check(v.String(), path)
		return
	}
	for i := range v.Len() {
		check(v.Index(i).String(), fmt.Sprintf("%s[%d]", path, i))
	}
}

func (d *Decoder) decodeMap(n *yaml.Node, v reflect.Value, path string) {
	if !d.is(n, yaml.MappingNode, "a section with names as keys", path) {
		return
	}
	v.Set(reflect.MakeMap(v.Type()))
	for key, value := range d.pairs(n, path) {
		elem := reflect.New(v.Type().Elem()).Elem()
		d.decode(value, elem, join(path, key.Value))
		v.SetMapIndex(reflect.ValueOf(key.Value), elem)
	}
}

func (d *Decoder) decodeSlice(n *yaml.Node, v reflect.Value, path string) {
	if !d.is(n, yaml.SequenceNode, "a list", path) {
		return
	}
	v.Set(reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content)))
	for i, item := range n.Content {
		d.decode(item, v.Index(i), fmt.Sprintf("%s[%d]", path, i))
	}
}

func (d *Decoder) decodeScalar(n *yaml.Node, v reflect.Value, path string) {
	if !d.is(n, yaml.ScalarNode, "a single value", path) {
		return
	}
	text, err := expand(n.Value, d.lookup)
	if err != nil {
		for line := range strings.Lines(err.Error()) {
			d.Add(path, "%s", strings.TrimSuffix(line, "\n"))
		}
		return
	}
	at := d.at[path]
	expanded := text != n.Value
	if expanded {
		at.written, at.expanded = n.Value, text
	}
	at.empty = text == ""
	d.at[path] = at
	const quotes = yaml.SingleQuotedStyle | yaml.DoubleQuotedStyle | yaml.LiteralStyle | yaml.FoldedStyle
	if n.Style&quotes != 0 && !expanded && !isText(v.Type()) {
		d.Add(path, "want the value without quotes: it is not a text")
		return
	}
	if err := setScalar(v, text); err != nil {
		d.Add(path, "%v", err)
	}
}

// pairs yields the keys of a mapping with their values. A node that cannot be a key
// is a problem and is left out.
func (d *Decoder) pairs(n *yaml.Node, path string) func(yield func(key, value *yaml.Node) bool) {
	return func(yield func(key, value *yaml.Node) bool) {
		first := map[string]int{}
		for i := 0; i+1 < len(n.Content); i += 2 {
			key, value := n.Content[i], n.Content[i+1]
			problem := ""
			switch {
			case key.Kind != yaml.ScalarNode || key.Style&yaml.TaggedStyle != 0 || key.Value == "":
				problem = "a key must be a plain word"
			case key.Value == "<<":
				problem = "merge keys (<<) are not part of YAML 1.2: use an alias for the whole section, or write it " +
					"out"
			case first[key.Value] > 0:
				problem = fmt.Sprintf("the key %q is used twice: first in line %d", key.Value, first[key.Value])
			}
			if problem != "" {
				d.hide(value.Line, value.Column)
				d.addAt(key, path, "%s", problem)
				continue
			}
			first[key.Value] = key.Line
			if !yield(key, value) {
				return
			}
		}
	}
}

// checkMinima compares numbers with the tag min of their fields.
func (d *Decoder) checkMinima(v reflect.Value, path string) {
	switch v.Kind() {
	case reflect.Struct:
		for _, f := range keyFields(v.Type()) {
			field, value := join(path, f.Tag.Get("yaml")), v.FieldByIndex(f.Index)
			least, err := strconv.ParseInt(f.Tag.Get("min"), 10, 64)
			if err == nil && value.Int() < least && d.Usable(field) {
				d.Add(field, "must be at least %d", least)
			}
			d.checkMinima(value, field)
		}
	case reflect.Slice:
		for i := range v.Len() {
			d.checkMinima(v.Index(i), fmt.Sprintf("%s[%d]", path, i))
		}
	}
}

// setDefaults fills a struct and the structs in it with the defaults in their tags.
func setDefaults(v reflect.Value) {
	for _, f := range keyFields(v.Type()) {
		if f.Type.Kind() == reflect.Struct {
			setDefaults(v.FieldByIndex(f.Index))
		}
		if text, ok := f.Tag.Lookup("default"); ok {
			setDefault(f.Name, v.FieldByIndex(f.Index), text)
		}
	}
}

func setDefault(name string, v reflect.Value, text string) {
	if err := setScalar(v, text); err != nil {
		panic("strict: internal error: default of " + name + ": " + err.Error())
	}
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

// Suggestion asks for the known word that is most similar to got. It is empty if
// none is similar.
func Suggestion(got string, known []string) string {
	if len(got) > 100 {
		return ""
	}
	got = strings.ToLower(strings.ReplaceAll(got, "_", "-"))
	best, distance := "", 1+min(3, 1+len(got)/4)
	for _, k := range known {
		if n := levenshtein.ComputeDistance(got, strings.ToLower(k)); n < distance {
			best, distance = k, n
		}
	}
	for _, k := range known {
		if best == "" && len(got) > 2 && (strings.HasPrefix(k, got) || strings.HasPrefix(got, k)) {
			best = k
		}
	}
	if best == "" {
		return ""
	}
	return fmt.Sprintf(": did you mean %q?", best)
}

// DidYouMean is the [Suggestion], or a list of all known words.
func DidYouMean(got string, known []string) string {
	if s := Suggestion(got, known); s != "" {
		return s
	}
	return ": want " + OrList(known)
}

// OrList spells a choice between words.
func OrList(words []string) string {
	if n := len(words); n > 1 {
		return strings.Join(words[:n-1], ", ") + " or " + words[n-1]
	}
	return strings.Join(words, "")
}
