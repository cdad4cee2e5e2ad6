package backupd_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"
)

// TestLinesAreShort: no line of Go has more than 120 columns, where a tab is one.
func TestLinesAreShort(t *testing.T) {
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && d.Name() == ".git":
			return fs.SkipDir
		case d.IsDir() || filepath.Ext(path) != ".go":
			return nil
		}
		raw, err := os.ReadFile(path)
		n := 0
		for line := range strings.Lines(string(raw)) {
			n++
			if width := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); width > 120 {
				t.Errorf("%s:%d: %d columns, want at most 120", path, n, width)
			}
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
