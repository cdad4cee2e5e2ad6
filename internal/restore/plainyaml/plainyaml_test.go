package plainyaml_test

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/restore/plainyaml"
)

type values struct {
	Text   string   `json:"text"`
	Number uint64   `json:"number"`
	Yes    bool     `json:"yes"`
	List   []string `json:"list"`
	Sub    *values  `json:"sub,omitempty"`
	Subs   []values `json:"subs,omitempty"`
	*Embedded
	Untold string `json:"-"`
}

// Embedded has keys of the values that it is embedded in, as a plan is in its file.
type Embedded struct {
	Inner string `json:"inner"`
}

// TestRoundTrip: whatever a text looks like, it comes back as that text.
func TestRoundTrip(t *testing.T) {
	for _, text := range []string{
		"", "plain", "true", "null", "~", "1e5", "12", "0x1f", "007", "2026-11-20", "2026-11-20T10:15:00Z", "a: b", "- a",
		"a #b", "*a", "&a b", "!!str x", "'", `"`, "x\ny\n", "  lead", "{a}", "[", "%", "@", "`", "ümlaut", "yes", "<<", "|",
		"8e9e05c52164694d", "1234567890123456", strings.Repeat("long text ", 50), "tab\there", "\u2028",
	} {
		in := values{
			Text: text, Number: 1<<64 - 1, Yes: true, List: []string{text}, Sub: &values{Text: text, List: []string{}},
			Embedded: &Embedded{text},
		}
		raw, err := json.Marshal(in)
		if err != nil {
			t.Fatal(err)
		}
		doc, err := plainyaml.FromJSON(raw)
		if err != nil {
			t.Fatal(err)
		}
		var out values
		d, err := plainyaml.Parse(doc)
		if err == nil {
			err = d.Decode(&out)
		}
		if err != nil || !reflect.DeepEqual(out, in) {
			t.Errorf("%q: %v\n%s", text, err, doc)
		}
	}
}

func TestParse_Refuses(t *testing.T) {
	for name, c := range map[string]struct {
		text, reason string
		line         int
	}{
		"Empty":   {"", "empty", 0},
		"Comment": {"# nothing\n", "empty", 0},
		"List":    {"- a\n", "want keys", 1},
		"Text":    {"hello\n", "want keys", 1},
		"Twice":   {"text: a\n---\ntext: b\n", "second document", 2},
		"Anchor":  {"text: a\nlist: &x [a]\n", "anchors", 2},
		"Alias":   {"text: &x a\nlist: *x\n", "anchors", 1},
		"Merge":   {"text: a\n<<: {yes: true}\n", "plain", 2},
		"Tag":     {"text: !!binary aGk=\n", "tags", 1},
		"Key":     {"text: a\ntext: b\n", "twice", 2},
		"Null":    {"yes: true\ntext:\n", "plain", 2},
		"Float":   {"number: 1.5\n", "plain", 1},
		"Octal":   {"number: 0o17\n", "plain", 1},
		"Syntax":  {"text: a\n  b: [\n", "not YAML", 0},
		"Unknown": {"text: a\nsub:\n  test: b\n", `unknown key "test"`, 3},
		"Case":    {"text: a\nText: b\n", `unknown key "Text" (the name of a key is exact: "text" is another)`, 2},
		"CaseIn":  {"text: a\nsub:\n  list: []\n  LIST: [a]\n", `unknown key "LIST"`, 4},
		"CaseAt":  {"text: a\nsubs:\n  - text: a\n  - text: b\n    tEXT: c\n", `unknown key "tEXT"`, 5},
		"CaseOf":  {"text: a\nInner: a\n", `unknown key "Inner"`, 2},
		"Folded":  {"text: a\nliſt: [a]\n", `unknown key "liſt"`, 2},
		"Untold":  {"text: a\nUntold: a\n", `unknown key "Untold"`, 2},
		"Kind":    {"text: a\nnumber: many\n", "another kind", 2},
		"KindOf":  {"text: 5\n", "another kind", 1},
	} {
		d, err := plainyaml.Parse([]byte(c.text))
		if err == nil {
			err = d.Decode(&values{})
		}
		var e *plainyaml.Error
		if !errors.As(err, &e) || !strings.Contains(e.Message, c.reason) || c.line > 0 && e.Line != c.line {
			t.Errorf("%s: %+v, want %q in line %d", name, err, c.reason, c.line)
		}
	}
}
