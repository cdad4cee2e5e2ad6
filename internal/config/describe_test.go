package config_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/jsonschema-go/jsonschema"
	"go.yaml.in/yaml/v4"

	"github.com/etcd-backupd/backupd/internal/config"
)

// Everything said about keys is made from the types, tags and comments of these
// files, by package. Run 'go test ./internal/config -run TestPublished -update' after
// changing them.
var sources = map[string]string{
	"config": "config.go", "location": "../location/options.go", "s3": "../storage/s3/s3.go",
	"file": "../storage/file/options.go",
}

var update = flag.Bool("update", false, "write the published schema, example and documentation")

// comments returns the comments of all fields, by package, type and field name.
func comments(t *testing.T) map[string]string {
	t.Helper()
	out := map[string]string{}
	for pkg, path := range sources {
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			spec, ok := n.(*ast.TypeSpec)
			if !ok {
				return true
			}
			if s, ok := spec.Type.(*ast.StructType); ok {
				for _, f := range s.Fields.List {
					for _, name := range f.Names { // none: an embedded struct
						out[pkg+"."+spec.Name.Name+"."+name.Name] = strings.Join(strings.Fields(f.Doc.Text()), " ")
					}
				}
			}
			return true
		})
	}
	return out
}

// commentOf returns the comment of a field of typ, or of a struct embedded in typ.
func commentOf(comments map[string]string, typ reflect.Type, f reflect.StructField) string {
	for _, i := range f.Index[:len(f.Index)-1] {
		typ = typ.Field(i).Type
	}
	return comments[typ.String()+"."+f.Name]
}

// key is one key of the file.
type key struct {
	path, name   string // clusters[].snapshot.jitter, jitter
	field        reflect.StructField
	comment      string
	defaultValue string
	choices      []string
}

func (k key) required() bool { return k.field.Tag.Get("required") != "" }

// keysOf returns the keys of a type, each followed by those in it.
func keysOf(t *testing.T, comments map[string]string, typ reflect.Type, path string) []key {
	t.Helper()
	var out []key
	for _, f := range reflect.VisibleFields(typ) {
		name := f.Tag.Get("yaml")
		if name == "" {
			continue
		}
		k := key{
			path: path + name, name: name, field: f, comment: commentOf(comments, typ, f),
			defaultValue: f.Tag.Get("default"), choices: strings.Fields(f.Tag.Get("oneof")),
		}
		if k.comment == "" || !strings.HasPrefix(k.comment, f.Name) {
			t.Errorf("%s.%s needs a comment that begins with its name", typ.Name(), f.Name)
		}
		out = append(out, k)
		inner, suffix := f.Type, "."
		switch f.Type.Kind() {
		case reflect.Slice:
			inner, suffix = f.Type.Elem(), "[]."
		case reflect.Map:
			inner, suffix = f.Type.Elem(), ".NAME."
		case reflect.Pointer:
			inner = f.Type.Elem()
		}
		if inner.Kind() == reflect.Struct {
			out = append(out, keysOf(t, comments, inner, k.path+suffix)...)
		}
	}
	return out
}

// describe says what a key means, beginning with the key.
func (k key) describe() string {
	return "`" + k.name + "`" + strings.TrimPrefix(k.comment, k.field.Name)
}

// variable matches a variable, which may replace any value that is not a text.
const variable = `\$\{`

func schemaOf(t *testing.T, comments map[string]string, typ reflect.Type) *jsonschema.Schema {
	t.Helper()
	switch {
	case typ == reflect.TypeFor[time.Duration]():
		zero := 0.0
		return &jsonschema.Schema{Types: []string{"string", "integer"}, Minimum: &zero, Maximum: &zero,
			Pattern: `^(0|([0-9]+w)?([0-9]+d)?([0-9.]+(ns|us|µs|ms|s|m|h))*)$|` + variable}
	case typ.Kind() == reflect.Int64:
		zero := 0.0
		return &jsonschema.Schema{Types: []string{"string", "integer"}, Minimum: &zero,
			Pattern: `^[0-9.]+ ?([kKMGTPE]i?)?B$|^[0-9]+$|` + variable}
	}
	switch typ.Kind() {
	case reflect.String:
		return &jsonschema.Schema{Type: "string"}
	case reflect.Bool:
		return &jsonschema.Schema{Types: []string{"boolean", "string"}, Pattern: variable}
	case reflect.Int:
		zero := 0.0
		return &jsonschema.Schema{Types: []string{"integer", "string"}, Minimum: &zero, Pattern: variable}
	case reflect.Float64:
		zero, one := 0.0, 1.0
		return &jsonschema.Schema{Types: []string{"number", "string"}, Minimum: &zero, Maximum: &one, Pattern: variable}
	case reflect.Pointer:
		return schemaOf(t, comments, typ.Elem())
	case reflect.Slice:
		return &jsonschema.Schema{Type: "array", Items: schemaOf(t, comments, typ.Elem())}
	case reflect.Map:
		return &jsonschema.Schema{Type: "object", AdditionalProperties: schemaOf(t, comments, typ.Elem())}
	case reflect.Struct:
		return structSchema(t, comments, typ)
	}
	t.Fatalf("no schema for %s", typ)
	return nil
}

func structSchema(t *testing.T, comments map[string]string, typ reflect.Type) *jsonschema.Schema {
	t.Helper()
	s := &jsonschema.Schema{Type: "object", Properties: map[string]*jsonschema.Schema{},
		AdditionalProperties: &jsonschema.Schema{Not: &jsonschema.Schema{}}}
	for _, f := range reflect.VisibleFields(typ) {
		name := f.Tag.Get("yaml")
		if name == "" {
			continue
		}
		p := schemaOf(t, comments, f.Type)
		p.Description = strings.TrimPrefix(name+strings.TrimPrefix(commentOf(comments, typ, f), f.Name), " ")
		if text, ok := f.Tag.Lookup("default"); ok {
			p.Default = jsonValue(f.Type, text)
		}
		if least := f.Tag.Get("min"); least != "" {
			n := 0.0
			fmt.Sscan(least, &n)
			p.Minimum = &n
		}
		if words := strings.Fields(f.Tag.Get("oneof")); len(words) > 0 {
			choice := p
			if p.Items != nil {
				choice = p.Items
			}
			var enum []any
			for _, w := range words {
				enum = append(enum, w)
			}
			choice.AnyOf = []*jsonschema.Schema{{Enum: enum}, {Pattern: variable}}
		}
		one := 1
		if f.Tag.Get("required") != "" {
			s.Required = append(s.Required, name)
			switch p.Type {
			case "array":
				p.MinItems = &one
			case "object":
				if f.Type.Kind() == reflect.Map {
					p.MinProperties = &one
				}
			case "string":
				p.MinLength = &one
			}
		}
		s.Properties[name] = p
		s.PropertyOrder = append(s.PropertyOrder, name)
	}
	return s
}

func jsonValue(typ reflect.Type, text string) json.RawMessage {
	if typ.Kind() == reflect.String || typ == reflect.TypeFor[time.Duration]() {
		raw, _ := json.Marshal(text)
		return raw
	}
	return json.RawMessage(text)
}

func makeSchema(t *testing.T) []byte {
	t.Helper()
	s := structSchema(t, comments(t), reflect.TypeFor[config.Config]())
	s.Schema = "https://json-schema.org/draft/2020-12/schema"
	s.ID = "https://raw.githubusercontent.com/etcd-backupd/backupd/main/deploy/backupd.schema.json"
	s.Title = "Configuration of backupd"
	if _, err := s.Resolve(&jsonschema.ResolveOptions{ValidateDefaults: true}); err != nil {
		t.Fatal(err)
	}
	raw, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return append(raw, '\n')
}

// typeName is what a key's value is, for people.
func typeName(k key) string {
	if len(k.choices) > 0 {
		list := "`" + strings.Join(k.choices, "`, `") + "`"
		if k.field.Type.Kind() == reflect.Slice {
			return "list of " + list
		}
		return list
	}
	switch t := k.field.Type; {
	case t == reflect.TypeFor[time.Duration]():
		return "duration"
	case t == reflect.TypeFor[config.Secret]():
		return "URL, secret"
	case t.Kind() == reflect.Int64:
		return "size"
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Struct:
		return "list of sections"
	case t.Kind() == reflect.Slice && strings.HasSuffix(k.name, "-files"):
		return "list of files"
	case t.Kind() == reflect.Slice:
		return "list of texts"
	case t.Kind() == reflect.Map && t.Elem().Kind() == reflect.Struct:
		return "sections by name"
	case t.Kind() == reflect.Map:
		return "texts by name"
	case t.Kind() == reflect.Struct || t.Kind() == reflect.Pointer:
		return "section"
	case k.name == "folder":
		return "folder"
	case strings.HasSuffix(k.name, "-file"), k.name == "kubeconfig":
		return "file"
	case strings.HasSuffix(k.name, "schedule"):
		return "cron line"
	}
	return map[reflect.Kind]string{reflect.String: "text", reflect.Bool: "`true`, `false`", reflect.Int: "number",
		reflect.Float64: "number"}[k.field.Type.Kind()]
}

// makeTables returns one table of keys for each section.
func makeTables(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	var sections []string
	rows := map[string][]string{}
	for _, k := range keysOf(t, comments(t), reflect.TypeFor[config.Config](), "") {
		section := strings.TrimSuffix(strings.TrimSuffix(k.path, k.name), ".")
		if !slices.Contains(sections, section) {
			sections = append(sections, section)
		}
		value := "–"
		switch text, ok := k.field.Tag.Lookup("default"); {
		case ok:
			value = "`" + text + "`"
		case k.required():
			value = "required"
		}
		rows[section] = append(rows[section], fmt.Sprintf("| `%s` | %s | %s | %s |\n", k.name, typeName(k), value,
			strings.ReplaceAll(k.describe(), "|", `\|`)))
	}
	for _, s := range sections {
		title := "The file"
		if s != "" {
			title = "`" + s + "`"
		}
		fmt.Fprintf(&b, "\n### %s\n\n| key | type | default | meaning |\n|---|---|---|---|\n%s", title,
			strings.Join(rows[s], ""))
	}
	return b.String()
}

const (
	documentation = "../../docs/configuration.md"
	tablesBegin   = "<!-- keys: made from internal/config/config.go by its tests -->\n"
	tablesEnd     = "<!-- end of keys -->\n"
)

// published writes or compares a file.
func published(t *testing.T, path string, want []byte) {
	t.Helper()
	if *update {
		if err := os.WriteFile(path, want, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is not what the types say: run 'go test ./internal/config -run TestPublished -update'", path)
	}
}

func TestPublishedSchema(t *testing.T) {
	want := makeSchema(t)
	published(t, "schema.json", want)
	published(t, "../../deploy/backupd.schema.json", want)
}

func TestPublishedExample(t *testing.T) {
	published(t, "../../deploy/backupd.example.yaml", config.Example)
}

func TestPublishedDocumentation(t *testing.T) {
	raw, err := os.ReadFile(documentation)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok1 := strings.Cut(string(raw), tablesBegin)
	_, after, ok2 := strings.Cut(rest, tablesEnd)
	if !ok1 || !ok2 {
		t.Fatalf("%s has lost its markers", documentation)
	}
	published(t, documentation, []byte(before+tablesBegin+makeTables(t)+"\n"+tablesEnd+after))
}

// schema returns the published schema, ready to validate.
func schema(t *testing.T) *jsonschema.Resolved {
	t.Helper()
	var s jsonschema.Schema
	if err := json.Unmarshal(config.Schema, &s); err != nil {
		t.Fatal(err)
	}
	r, err := s.Resolve(nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestExample(t *testing.T) {
	c, err := config.Parse("example.yaml", config.Example, noEnvironment)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Clusters) != 2 || c.Clusters[0].Retention.MaxBytes != 500<<30 {
		t.Errorf("got %+v", c)
	}
	var v any
	if err := yaml.Load(config.Example, &v); err != nil {
		t.Fatal(err)
	}
	if err := schema(t).Validate(v); err != nil {
		t.Errorf("the schema refuses the example: %v", err)
	}
	// Every key is shown, be it in a comment.
	for _, k := range keysOf(t, comments(t), reflect.TypeFor[config.Config](), "") {
		if !regexp.MustCompile(`(?m)^[ #-]*` + k.name + `:`).Match(config.Example) {
			t.Errorf("the example does not show %s", k.path)
		}
	}
}

// The schema must refuse what the program does, as far as a schema can.
func TestSchemaRefuses(t *testing.T) {
	r := schema(t)
	for _, s := range []string{
		"{}",
		"repositories: {}\nclusters: []",
		strings.Replace(minimal, "clusters:", "clusterz:", 1),
		minimal + "\ndaemon: {concurrency: 0}",
		minimal + "\ndaemon: {concurrency: two}",
		minimal + "\ndaemon: {log: {format: xml}}",
		minimal + "\ndaemon: {spool: {max-bytes: 10 apples}}",
		minimal + "\ndaemon: {notifications: [{on: [failures], slack: {url: x}}]}",
		strings.Replace(minimal, "schedule: '@hourly'", "schedule: '@hourly', jitter: 5", 1),
		strings.Replace(minimal, "name: prod", "name: ''", 1),
	} {
		var v any
		if err := yaml.Load([]byte(s), &v); err != nil {
			t.Fatal(err)
		}
		if err := r.Validate(v); err == nil {
			t.Errorf("the schema takes\n%s", s)
		}
		if _, err := config.Parse("x", []byte(s), noEnvironment); err == nil {
			t.Errorf("the program takes\n%s", s)
		}
	}
	for _, s := range []string{minimal,
		minimal + "\ndaemon: {concurrency: '${N}', log: {format: '${F}'}, spool: {max-bytes: 1.5GiB}}"} {
		var v any
		if err := yaml.Load([]byte(s), &v); err != nil {
			t.Fatal(err)
		}
		if err := r.Validate(v); err != nil {
			t.Errorf("the schema refuses\n%s\n%v", s, err)
		}
	}
}
