package kube_test

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/rogpeppe/go-internal/txtar"

	"github.com/etcd-backupd/backupd/internal/members"
	"github.com/etcd-backupd/backupd/internal/members/kube"
)

// read reads text that is in a file f.
func read(text string) ([]members.Start, error) {
	return kube.Read("f", []byte(text), kube.Options{Hostname: "host7"})
}

// show writes a start with the line of each word.
func show(s members.Start) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s of %s in namespace %q, replicas %d, line %d\n", s.Means, s.Unit, word(s.Hostname),
		s.Namespace, s.Replicas, s.Of.Line)
	if s.Dir.Text != "" || s.User.Text != "" || s.Group.Text != "" {
		fmt.Fprintf(&b, "  dir %s user %s group %s\n", word(s.Dir), word(s.User), word(s.Group))
	}
	for _, w := range s.Args {
		fmt.Fprintf(&b, "  %s\n", word(w))
	}
	for _, v := range s.Env {
		fmt.Fprintf(&b, "  env %s=%s\n", v.Name, word(v.Value))
	}
	for _, m := range s.Mounts {
		fmt.Fprintf(&b, "  mount %s from %s%s", word(m.Inside), word(m.Host), m.Volume)
		if m.ReadOnly {
			fmt.Fprint(&b, " read-only")
		}
		fmt.Fprintln(&b)
	}
	for _, n := range s.Notes {
		fmt.Fprintf(&b, "  note %s\n", n)
	}
	return b.String()
}

func word(w members.Word) string {
	if w.Text == "" && w.At.File == "" {
		return "-"
	}
	return fmt.Sprintf("%s:%d", w.Text, w.At.Line)
}

// TestRead: each file gives the starts that were worked out for it by hand.
func TestRead(t *testing.T) {
	files, err := filepath.Glob("testdata/read/*.txtar")
	if err != nil || len(files) < 4 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			a, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			starts, err := kube.Read("f", a.Files[0].Data, kube.Options{Hostname: "host7"})
			if err != nil {
				t.Fatal(err)
			}
			var got strings.Builder
			for _, s := range starts {
				got.WriteString(show(s))
			}
			if diff := cmp.Diff(string(a.Files[1].Data), got.String()); diff != "" {
				t.Errorf("want -, got +:\n%s", diff)
			}
		})
	}
}
