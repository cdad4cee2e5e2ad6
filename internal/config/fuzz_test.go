package config_test

import (
	"errors"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.yaml.in/yaml/v4"

	"github.com/etcd-backupd/backupd/internal/config"
)

// plain turns a configuration into what YAML can write, with nothing left out.
func plain(v reflect.Value) any {
	switch v.Kind() {
	case reflect.Struct:
		out := map[string]any{}
		for _, field := range reflect.VisibleFields(v.Type()) {
			key := field.Tag.Get("yaml")
			f := v.FieldByIndex(field.Index)
			if key == "" || f.Kind() == reflect.Pointer && f.IsNil() || f.Kind() == reflect.Slice && f.IsNil() ||
				f.Kind() == reflect.Map && f.IsNil() {
				continue
			}
			out[key] = plain(f)
			if key == "listen" && f.String() == "" {
				out[key] = "off"
			}
		}
		return out
	case reflect.Map:
		out := map[string]any{}
		for _, k := range v.MapKeys() {
			out[k.String()] = plain(v.MapIndex(k))
		}
		return out
	case reflect.Slice:
		out := []any{}
		for i := range v.Len() {
			out = append(out, plain(v.Index(i)))
		}
		return out
	case reflect.Pointer:
		return plain(v.Elem())
	}
	if d, ok := v.Interface().(time.Duration); ok {
		return d.String()
	}
	if v.Kind() == reflect.String {
		return strings.ReplaceAll(v.String(), "$", "$$")
	}
	return v.Interface()
}

// FuzzParse: nothing panics or hangs, every problem has words and a place in the
// file, and what is taken means the same when it is written out with every
// default and read again.
func FuzzParse(f *testing.F) {
	f.Add(string(config.Example))
	f.Add(minimal)
	f.Add(strings.Replace(minimal, "prod", "'${NAME}'", 1))
	f.Add(minimal + "\ndaemon: {server: {listen: off}, notifications: [{slack: {url: 'https://x/$$'}}, " +
		"{command: {program: a, args: ['']}}]}")
	f.Add(":\n0")
	f.Add("a: 1\r\rb: [\u2028")
	f.Add("a: &a [*a, <<]\n? [b]\n: {c: !!d e}")
	f.Add("repositories: &r {x: {url: 's3://a/b', s3: {endpoint: h}}}\nclusters: [{name: é, endpoints: [a, b], " +
		"snapshot: " +
		"" +
		"*r}]")
	f.Fuzz(func(t *testing.T, text string) {
		env := func(name string) (string, bool) { return "v-" + name, len(name) < 5 }
		c, err := config.Parse("fuzz.yaml", []byte(text), env)
		if err != nil {
			var e *config.Error
			if !errors.As(err, &e) || len(e.Problems) == 0 {
				t.Fatalf("got %v", err)
			}
			lines := len(regexp.MustCompile("\r\n|[\n\r\u0085\u2028\u2029]").Split(text, -1))
			for _, p := range e.Problems {
				if p.Message == "" || p.Line < 0 || p.Line > lines || p.Line > 0 && p.Column < 1 {
					t.Fatalf("%+v of %d lines", p, lines)
				}
			}
			return
		}
		raw, err := yaml.Dump(plain(reflect.ValueOf(c).Elem()))
		if err != nil {
			t.Fatal(err)
		}
		again, err := config.Parse("again.yaml", raw, os.LookupEnv)
		if err != nil {
			t.Fatalf("%v\n%s", err, raw)
		}
		if diff := cmp.Diff(c, again, cmpopts.IgnoreUnexported(config.Config{}), cmpopts.EquateEmpty()); diff != "" {
			t.Fatalf("-first +again\n%s", diff)
		}
		c.Files()
		for i := range c.Clusters {
			c.Clusters[i].Policy()
			if _, err := c.Clusters[i].Snapshot.Line(); err != nil {
				t.Fatal(err)
			}
		}
	})
}
