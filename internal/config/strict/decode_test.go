package strict_test

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/etcd-backupd/backupd/internal/config/strict"
	"github.com/etcd-backupd/backupd/internal/secret"
)

type file struct {
	Name  string            `yaml:"name" required:"yes"`
	Every time.Duration     `yaml:"every" default:"1h"`
	Kind  string            `yaml:"kind" default:"big" oneof:"big small"`
	Count int               `yaml:"count" default:"3" min:"1"`
	URL   secret.Text       `yaml:"url"`
	Tags  map[string]string `yaml:"tags"`
	List  []item            `yaml:"list"`
}

type item struct {
	Bytes int64 `yaml:"bytes"`
}

func decode(text string) (*file, error) {
	var f file
	lookup := func(name string) (string, bool) { return "from " + name, name == "SET" }
	d, err := strict.Decode("file.yaml", []byte(text), lookup, &f)
	if err != nil {
		return nil, err
	}
	return &f, d.Err()
}

func TestDecode(t *testing.T) {
	got, err := decode("name: ${SET}\nkind: small\ntags: {b: x, a: $$y}\nlist: [{bytes: 1KiB}]")
	if err != nil {
		t.Fatal(err)
	}
	want := &file{
		Name: "from SET", Every: time.Hour, Kind: "small", Count: 3,
		Tags: map[string]string{"a": "$y", "b": "x"}, List: []item{{1024}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
	var paths []string
	strict.Walk(got, func(path string, _ reflect.Value) { paths = append(paths, path) })
	if all := strings.Join(paths, " "); all != "name every kind count url tags.a tags.b list[0].bytes" {
		t.Errorf("visited %s", all)
	}
}

// TestDecode_Problems reports all mistakes at once, and no secret.
func TestDecode_Problems(t *testing.T) {
	_, err := decode("nam: x\nkind: bigg\ncount: 0\nurl: [https://secret]\nlist:\n- bytes: ${UNSET}\n- bytes: '7'\n")
	var e *strict.Error
	if !errors.As(err, &e) {
		t.Fatalf("got %v", err)
	}
	for _, want := range []string{
		`file.yaml:1:1: unknown key "nam": did you mean "name"?`, "name: is missing",
		`file.yaml:2:7: kind: "bigg" is not known: want big or small: did you mean "big"?`,
		"file.yaml:3:8: count: must be at least 1", "file.yaml:4:6: url: want a single value, not a list",
		"list[0].bytes: the environment variable UNSET is not set", "list[1].bytes: want the value without quotes",
		"    4 | url: ***\n",
	} {
		if !strings.Contains(e.Error(), want) {
			t.Errorf("%q is missing in\n%v", want, e)
		}
	}
	if len(e.Problems) != 7 || strings.Contains(e.Error(), "secret") {
		t.Errorf("%d problems:\n%v", len(e.Problems), e)
	}
}

func TestDecode_NotYAML(t *testing.T) {
	for _, text := range []string{"", "\n# only a comment\n"} {
		if _, err := decode(text); !errors.Is(err, strict.ErrEmpty) {
			t.Errorf("%q: %v, want ErrEmpty", text, err)
		}
	}
	var e *strict.Error
	if _, err := decode("name: [x\nkind: y"); !errors.As(err, &e) || !strings.Contains(err.Error(), "not YAML") {
		t.Errorf("an open list: %v", err)
	}
	if _, err := decode(strings.Repeat("#", strict.MaxBytes+1)); !errors.As(err, &e) {
		t.Errorf("a file that is too large: %v", err)
	}
}
