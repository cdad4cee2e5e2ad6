package main

import (
	"encoding"
	"encoding/json"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/config"
	"github.com/etcd-backupd/backupd/internal/confirm"
	"github.com/etcd-backupd/backupd/internal/notify"
	"github.com/etcd-backupd/backupd/internal/rescue"
	"github.com/etcd-backupd/backupd/internal/restore"
	"github.com/etcd-backupd/backupd/internal/restore/again"
	"github.com/etcd-backupd/backupd/internal/restore/undo"
	"github.com/etcd-backupd/backupd/internal/server"
)

// documents are the types of all documents, by their kinds.
var documents = map[string]reflect.Type{
	kindInit:           reflect.TypeFor[initialized](),
	kindSnapshot:       reflect.TypeFor[shown](),
	kindCompanions:     reflect.TypeFor[companionList](),
	kindSnapshotList:   reflect.TypeFor[snapshotList](),
	kindBackups:        reflect.TypeFor[onceList](),
	kindCopy:           reflect.TypeFor[copiedList](),
	kindPrune:          reflect.TypeFor[prunedList](),
	kindVerification:   reflect.TypeFor[verifications](),
	kindPlan:           reflect.TypeFor[restore.Plan](),
	kindRestore:        reflect.TypeFor[restore.Summary](),
	kindRestorePlan:    reflect.TypeFor[restore.Summary](),
	kindRestoreAborted: reflect.TypeFor[restore.Summary](),
	kindUnneeded:       reflect.TypeFor[again.Found](),
	kindUndo:           reflect.TypeFor[undo.Done](),
	kindUndoPlan:       reflect.TypeFor[undo.Done](),
	kindRescue:         reflect.TypeFor[rescue.Report](),
	kindVersion:        reflect.TypeFor[versionInfo](),
	kindTimelines:      reflect.TypeFor[timelineList](),
	kindConfigCheck:    reflect.TypeFor[configChecked](),
	kindImport:         reflect.TypeFor[importList](),
	kindPin:            reflect.TypeFor[pinSet](),
	kindPause:          reflect.TypeFor[pauseSet](),
	kindRemoval:        reflect.TypeFor[removal](),
	kindAccepted:       reflect.TypeFor[acceptedTimeline](),
	kindMemberReplaced: reflect.TypeFor[replaced](),
	kindError:          reflect.TypeFor[failure](),
	kindStatus:         reflect.TypeFor[status](),
	kindCheck:          reflect.TypeFor[checked](),
	kindPolicies:       reflect.TypeFor[policyList](),

	kindClusterVerification: reflect.TypeFor[confirm.Report](),
}

// others are the JSON that is no document of a command: the manifest, the API and
// notifications. Stored objects that no answer holds are the matter of docs/format.md.
var others = []reflect.Type{
	reflect.TypeFor[backup.Manifest](), reflect.TypeFor[notify.Event](),
	reflect.TypeFor[server.ClusterList](), reflect.TypeFor[server.SnapshotList](), reflect.TypeFor[server.JobList](),
	reflect.TypeFor[server.PrunePlan](), reflect.TypeFor[server.SnapshotDetail](),
	reflect.TypeFor[server.VerificationRequest](), reflect.TypeFor[server.PinRequest](),
	reflect.TypeFor[server.Problem](),
}

// names are the shapes that each name has in some JSON.
type names map[string]map[string]bool

func (n names) add(t reflect.Type) {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice || t.Kind() == reflect.Map {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct || shape(t) != "object" || t.Implements(reflect.TypeFor[json.Marshaler]()) {
		return
	}
	for i := range t.NumField() {
		f := t.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous && name == "" {
			n.add(f.Type)
			continue
		}
		if name == "-" || !f.IsExported() {
			continue
		}
		if n[name] == nil {
			n[name] = map[string]bool{}
		}
		n[name][shape(f.Type)] = true
		n.add(f.Type)
	}
}

// shape says what JSON a type becomes.
func shape(t reflect.Type) string {
	switch {
	case t == reflect.TypeFor[time.Time]():
		return "time"
	case t == reflect.TypeFor[any](), t.Implements(reflect.TypeFor[json.Marshaler]()):
		return "object" // what it holds is told in docs/format.md, or is of another
	case t.Implements(reflect.TypeFor[encoding.TextMarshaler]()):
		return "text"
	}
	switch t.Kind() {
	case reflect.Pointer:
		return shape(t.Elem())
	case reflect.String:
		return "text"
	case reflect.Bool:
		return "boolean"
	case reflect.Slice:
		if t.Elem().Kind() == reflect.Uint8 {
			return "text" // base64
		}
		return "list"
	case reflect.Struct, reflect.Map:
		return "object"
	}
	return "number"
}

var (
	namesRow = regexp.MustCompile("(?m)^\\| `([^`]+)` \\| ([a-z, ]+) \\| ([^|]+) \\| ([^|]*) \\|$")
	kindsRow = regexp.MustCompile("(?m)^\\| `(backupd/[a-z0-9/-]+)` \\|")
	inQuotes = regexp.MustCompile("`([^`]+)`")
)

// TestNames: docs/names.md tells every name of every document, event and answer of the API,
// and what it is; a thing has one name, in camelCase, and the same in kebab-case in YAML.
func TestNames(t *testing.T) {
	raw, err := os.ReadFile("../../docs/names.md")
	if err != nil {
		t.Fatal(err)
	}
	used := names{}
	for _, doc := range documents {
		used.add(doc)
	}
	for _, other := range others {
		used.add(other)
	}
	used["kind"] = map[string]bool{"text": true} // of each document, too
	keys := map[string]bool{}
	yamlKeys(reflect.TypeFor[config.Config](), keys, map[reflect.Type]bool{})

	told := map[string]bool{}
	last := ""
	for _, row := range namesRow.FindAllStringSubmatch(string(raw), -1) {
		name, what, yaml := row[1], row[2], row[4]
		if told[name] {
			t.Errorf("%s stands there twice", name)
		}
		if strings.ToLower(name) < last {
			t.Errorf("%s stands after %s", name, last)
		}
		last, told[name] = strings.ToLower(name), true
		if got := strings.Join(slices.Sorted(maps.Keys(used[name])), ", "); got != what {
			t.Errorf("%s is %q in the types, and %q in docs/names.md", name, got, what)
		}
		for _, key := range inQuotes.FindAllStringSubmatch(yaml, -1) {
			if !keys[key[1]] {
				t.Errorf("%s: the configuration has no key %s", name, key[1])
			}
		}
		if key := kebab(name); keys[key] && !strings.Contains(yaml, "`"+key+"`") && !strings.Contains(yaml, "another") {
			t.Errorf("%s: the configuration has the key %s: is it the same?", name, key)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(used)) {
		if !told[name] {
			t.Errorf("| `%s` | %s | ? | |", name, strings.Join(slices.Sorted(maps.Keys(used[name])), ", "))
		}
		if !regexp.MustCompile(`^[a-z][A-Za-z0-9]*$`).MatchString(name) ||
			regexp.MustCompile(`(Id|Url|Kv|Wal|Tls|Sha)([A-Z]|s?$)`).MatchString(name) {
			t.Errorf("%s is not in camelCase, or an abbreviation in it is not in capitals", name)
		}
	}
	for key := range keys {
		if !regexp.MustCompile(`^[a-z][a-z0-9]*(-[a-z0-9]+)*$`).MatchString(key) {
			t.Errorf("the key %s is not in kebab-case", key)
		}
	}
}

// TestKinds: each kind of a document is in docs/names.md, and has a type here.
func TestKinds(t *testing.T) {
	raw, err := os.ReadFile("../../docs/names.md")
	if err != nil {
		t.Fatal(err)
	}
	var told []string
	for _, row := range kindsRow.FindAllStringSubmatch(string(raw), -1) {
		told = append(told, row[1])
	}
	slices.Sort(told)
	if want := slices.Sorted(maps.Keys(documents)); !slices.Equal(told, want) {
		t.Errorf("docs/names.md has\n%q\nthe commands print\n%q", told, want)
	}
	if want := slices.Sorted(maps.Keys(documents)); !slices.Equal(kindConstants(t), want) {
		t.Errorf("the program has the kinds\n%q\nand here are types for\n%q", kindConstants(t), want)
	}
}

// kindConstants are the values of all constants of the program that begin with "kind".
func kindConstants(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, name := range files {
		file, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(file, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok || !strings.HasPrefix(spec.Names[0].Name, "kind") || len(spec.Values) != 1 {
				return true
			}
			if lit, ok := spec.Values[0].(*ast.BasicLit); ok {
				if kind, err := strconv.Unquote(lit.Value); err == nil && strings.HasPrefix(kind, "backupd/") {
					out = append(out, kind)
				}
			}
			return true
		})
	}
	slices.Sort(out)
	return out
}

func yamlKeys(t reflect.Type, keys map[string]bool, seen map[reflect.Type]bool) {
	for t.Kind() == reflect.Pointer || t.Kind() == reflect.Slice || t.Kind() == reflect.Map {
		t = t.Elem()
	}
	if t.Kind() != reflect.Struct || seen[t] {
		return
	}
	seen[t] = true
	for i := range t.NumField() {
		if key := t.Field(i).Tag.Get("yaml"); key != "" && key != "-" {
			keys[key] = true
		}
		yamlKeys(t.Field(i).Type, keys, seen)
	}
}

// kebab spells a name as YAML does: peerURLs becomes peer-urls.
func kebab(name string) string {
	var out strings.Builder
	runes := []rune(strings.ReplaceAll(name, "URLs", "Urls"))
	for i, r := range runes {
		if i > 0 && unicode.IsUpper(r) && !unicode.IsUpper(runes[i-1]) {
			out.WriteByte('-')
		}
		out.WriteRune(unicode.ToLower(r))
	}
	return out.String()
}

func TestKebab(t *testing.T) {
	for name, want := range map[string]string{"timeZone": "time-zone", "repositoryID": "repository-id",
		"peerURLs": "peer-urls", "url": "url"} {
		if got := kebab(name); got != want {
			t.Errorf("%s: got %s", name, got)
		}
	}
}
