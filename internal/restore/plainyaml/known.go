package plainyaml

import (
	"encoding"
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"

	"go.yaml.in/yaml/v4"
)

// known refuses a key of n for which a value of the type t has no field of just that name.
// [json.Decoder] takes a name in another case for the same, and the last of the two wins: so
// a line that a person reads would be ignored.
func known(n *yaml.Node, t reflect.Type) error {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case readsItself(t):
		return nil
	case t.Kind() == reflect.Slice && n.Kind == yaml.SequenceNode:
		for _, c := range n.Content {
			if err := known(c, t.Elem()); err != nil {
				return err
			}
		}
	case t.Kind() == reflect.Struct && n.Kind == yaml.MappingNode:
		fields := fieldsOf(t)
		for i := 0; i+1 < len(n.Content); i += 2 {
			key := n.Content[i]
			field, ok := fields[key.Value]
			if !ok {
				return unknown(key, slices.Sorted(maps.Keys(fields)))
			}
			if err := known(n.Content[i+1], field); err != nil {
				return err
			}
		}
	}
	return nil
}

// readsItself reports whether a value of the type t is no matter of its fields, as a time.
func readsItself(t reflect.Type) bool {
	p := reflect.PointerTo(t)
	return p.Implements(reflect.TypeFor[json.Unmarshaler]()) || p.Implements(reflect.TypeFor[encoding.TextUnmarshaler]())
}

// fieldsOf returns the types of the fields of a struct by their names in JSON, with those of
// embedded structs.
func fieldsOf(t reflect.Type) map[string]reflect.Type {
	out := map[string]reflect.Type{}
	for _, f := range reflect.VisibleFields(t) {
		if name, _, _ := strings.Cut(f.Tag.Get("json"), ","); name != "" && name != "-" {
			out[name] = f.Type
		}
	}
	return out
}

func unknown(key *yaml.Node, names []string) error {
	message := fmt.Sprintf("unknown key %q", key.Value)
	i := slices.IndexFunc(names, func(name string) bool { return strings.EqualFold(name, key.Value) })
	if i >= 0 {
		message += fmt.Sprintf(" (the name of a key is exact: %q is another)", names[i])
	}
	return &Error{key.Line, message}
}
