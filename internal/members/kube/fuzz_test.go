package kube_test

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
	"pgregory.net/rapid"

	"github.com/etcd-backupd/backupd/internal/members"
	"github.com/etcd-backupd/backupd/internal/members/kube"
)

// FuzzRead: no text makes a panic, an error has a place in the file, and what is read is a
// member of Kubernetes with absolute mounts. Where the kubelet of the tests knows all of
// the file, it is the same member.
func FuzzRead(f *testing.F) {
	files, err := filepath.Glob("testdata/read/*.txtar")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range files {
		a, err := txtar.ParseFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(a.Files[0].Data)
	}
	f.Add([]byte(set))
	f.Fuzz(func(t *testing.T, raw []byte) {
		starts, err := kube.Read("f", raw, kube.Options{Hostname: "host7"})
		if err != nil {
			var at *members.FileError
			if !errors.As(err, &at) || at.At.File != "f" || at.At.Line < 0 {
				t.Errorf("the error has no place: %v", err)
			}
			return
		}
		if !kube.Recognize("f", raw) || len(starts) == 0 {
			t.Errorf("%d starts of a file that is not recognized", len(starts))
		}
		for _, s := range starts {
			if !s.Contained || s.Of.File != "f" || s.Of.Line < 1 {
				t.Errorf("got %+v", s)
			}
			for _, m := range s.Mounts {
				if !filepath.IsAbs(m.Inside.Text) || m.Host.Text != "" && !filepath.IsAbs(m.Host.Text) ||
					m.Host.Text == "" && m.Volume == "" {
					t.Errorf("a mount without a place: %+v", m)
				}
			}
			for _, w := range s.Args {
				if w.At.File != "f" || w.At.Line < 1 {
					t.Errorf("%q has no place: %+v", w.Text, w.At)
				}
			}
		}
	})
}

// TestExpand: references are replaced by the rules of the documentation.
func TestExpand(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringMatching(`[$()AB]{0,12}`).Draw(t, "text")
		env := map[string]string{"A": "$(B)", "B": "$$", "": "empty", "AB": ""}
		got := kube.Expand(text, func(name string) (string, bool) {
			value, ok := env[name]
			return value, ok
		})
		if want := expandByHand(text, env); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	})
}
