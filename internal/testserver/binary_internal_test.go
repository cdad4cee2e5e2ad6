package testserver

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestBuild_Failure(t *testing.T) {
	dir := t.TempDir()
	source, target := filepath.Join(dir, "source"), filepath.Join(dir, "target")
	if err := os.Mkdir(source, 0o700); err != nil {
		t.Fatal(err)
	}
	files := map[string]string{
		"go.mod":  "module example.org/broken\n\ngo 1.26.0\n",
		"main.go": "package main\n\nfunc main() { undefinedThing() }\n",
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(source, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	err := build(t.Context(), source, target, []program{{"broken", "example.org/broken"}})
	if err == nil || !strings.Contains(err.Error(), "undefinedThing") {
		t.Errorf("got error %v, want one with the compiler's words", err)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("got %v (%v) beside the source, want nothing", entries, err)
	}
}
