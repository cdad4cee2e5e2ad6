package config

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// Files returns every file that the configuration names, sorted: certificates,
// keys, passwords, tokens and so on. They are what to watch for changes.
func (c *Config) Files() []string {
	return c.files(func(key string) bool { return key != "folder" })
}

// CertificateFiles returns the files among [Config.Files] that hold
// certificates.
func (c *Config) CertificateFiles() []string {
	return c.files(func(key string) bool { return key == "cert-file" || isCAFile(key) })
}

func isCAFile(key string) bool { return key == "ca-file" || key == "client-ca-file" }

func (c *Config) files(wanted func(key string) bool) []string {
	var out []string
	eachPath(c, func(path, value string) {
		if wanted(lastKey(path)) {
			out = append(out, value)
		}
	})
	slices.Sort(out)
	return slices.Compact(out)
}

// lastKey returns the key at the end of a path, without an index.
func lastKey(path string) string {
	key := path[strings.LastIndex(path, ".")+1:]
	key, _, _ = strings.Cut(key, "[")
	return key
}

// namesPath reports whether the values of a key are paths: that is told by its
// name, so that a new key cannot be forgotten here.
func namesPath(key string) bool {
	return key == "folder" || strings.HasSuffix(key, "-file") || strings.HasSuffix(key, "-files")
}

// eachPath calls visit with every file and folder that is named, and with the
// path of the key that names it.
func eachPath(c *Config, visit func(path, value string)) {
	walk(reflect.ValueOf(c).Elem(), "", func(path string, v reflect.Value) {
		if v.Kind() == reflect.String && v.String() != "" && namesPath(lastKey(path)) {
			visit(path, v.String())
		}
	})
}

// walk visits everything in v, in the order of the types.
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
