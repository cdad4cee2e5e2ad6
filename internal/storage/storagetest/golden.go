package storagetest

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"testing"
)

var replaced = []struct {
	pattern *regexp.Regexp
	by      string
}{
	{regexp.MustCompile(`\d{8}T\d{6}Z-r\d+-[a-z2-7]{6}`), "ID"},
	{regexp.MustCompile(`\d{8}T\d{6}Z-[a-z2-7]{6}`), "NAME"},
	{regexp.MustCompile(`\d{8}T\d{6}Z`), "TIME"},
	{regexp.MustCompile(`ID\.t\d+-[a-z2-7]{6}\.\d+\.`), "ID.TIMELINE."},
}

// Generic returns a trace with its ids, names of data, times and timelines replaced,
// which differ from run to run.
func Generic(trace string) string {
	for _, r := range replaced {
		trace = r.pattern.ReplaceAllString(trace, r.by)
	}
	return trace
}

// Golden compares a trace with a file in testdata. With update it writes the file
// first.
func Golden(t *testing.T, name, got string, update bool) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("%s: got\n%swant\n%s", path, got, want)
	}
}
