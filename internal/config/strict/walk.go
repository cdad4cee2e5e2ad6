package strict

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// Walk visits every value in what the pointer v points to, in the order of the
// fields, with the path of its key.
func Walk(v any, visit func(path string, v reflect.Value)) {
	walk(reflect.ValueOf(v).Elem(), "", visit)
}

func walk(v reflect.Value, path string, visit func(path string, v reflect.Value)) {
	switch v.Kind() {
	case reflect.Struct:
		for _, f := range keyFields(v.Type()) {
			walk(v.FieldByIndex(f.Index), join(path, f.Tag.Get("yaml")), visit)
		}
	case reflect.Pointer:
		if !v.IsNil() {
			walk(v.Elem(), path, visit)
		}
	case reflect.Slice:
		for i := range v.Len() {
			walk(v.Index(i), fmt.Sprintf("%s[%d]", path, i), visit)
		}
	case reflect.Map:
		names := v.MapKeys()
		slices.SortFunc(names, func(a, b reflect.Value) int { return strings.Compare(a.String(), b.String()) })
		for _, name := range names {
			walk(v.MapIndex(name), join(path, name.String()), visit)
		}
	default:
		visit(path, v)
	}
}
