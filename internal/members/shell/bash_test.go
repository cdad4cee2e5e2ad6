package shell_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/etcd-backupd/backupd/internal/members"
	"github.com/etcd-backupd/backupd/internal/members/shell"
	"github.com/etcd-backupd/backupd/internal/testserver/rounds"
)

// fake writes an etcd that records what it gets into a file named OUT, and runs on.
func fake(t *testing.T, dir string) {
	t.Helper()
	text := "#!/bin/sh\n{ printf 'run\\n%s\\n' \"$PWD\"; env | grep '^ETCD_' | sort; printf '<%s>' \"$@\"; echo; } >>" +
		dir + "/out\n"
	for _, name := range []string{"etcd", "docker"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// real is what the fake etcd gets if the shell runs the text.
func real(t *testing.T, sh, dir, text string) (runs []string) {
	t.Helper()
	out := filepath.Join(dir, "out")
	if err := os.Remove(out); err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	cmd := exec.Command(sh, "-c", text+"\nwait")
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + dir + ":/usr/bin:/bin"}
	if text, err := cmd.CombinedOutput(); err != nil {
		t.Logf("%v: %s", err, text)
	}
	raw, err := os.ReadFile(out)
	if err != nil {
		return nil
	}
	for _, run := range strings.Split(string(raw), "run\n")[1:] {
		runs = append(runs, strings.TrimSpace(run))
	}
	return runs
}

// ours is what we say about it, in the same words; refused is true if we do not say all of it.
func ours(dir, text string) (runs []string, refused bool) {
	commands, err := shell.Commands(members.Word{Text: text, At: members.Position{File: "f", Line: 1}}, nil,
		shell.Options{Dir: members.Word{Text: dir}, Whole: true, Args: []members.Word{{}}})
	if err != nil {
		return nil, true
	}
	for _, c := range commands {
		if c.Err != nil {
			refused = refused || c.Hides() || c.IsEtcd()
			continue
		}
		if filepath.Base(c.Words[0].Text) != "etcd" {
			continue
		}
		run := []string{c.Dir.Text}
		for _, v := range c.Env {
			if strings.HasPrefix(v.Name, "ETCD_") {
				run = append(run, v.Name+"="+v.Value.Text)
			}
		}
		line := ""
		for _, w := range c.Words[1:] {
			line += "<" + w.Text + ">"
		}
		if len(c.Words) == 1 {
			line = "<>"
		}
		runs = append(runs, strings.TrimSpace(strings.Join(append(run, line), "\n")))
		refused = refused || c.Dir.Text == ""
	}
	return runs, refused
}

// TestCommands_AsShells: generated scripts give an etcd the same words, environment and
// folder as they do in bash and in sh.
func TestCommands_AsShells(t *testing.T) {
	dir := t.TempDir()
	fake(t, dir)
	if err := os.MkdirAll(filepath.Join(dir, "a", "b"), 0o755); err != nil {
		t.Fatal(err)
	}
	said := 0
	rapid.Check(t, func(r *rapid.T) {
		text := script(r, dir, 0)
		got, refused := ours(dir, text)
		if refused || said >= rounds.Of(40) {
			return
		}
		said++
		for _, sh := range []string{"bash", "sh"} {
			want := real(t, sh, dir, text)
			if !slices.Equal(sorted(got), sorted(want)) {
				r.Fatalf("%s runs\n%s\n--- it gives\n%s\n--- we say\n%s", sh, text, strings.Join(want, "\n"),
					strings.Join(got, "\n"))
			}
		}
	})
	if said == 0 {
		t.Error("all scripts were refused: nothing was compared")
	}
}

// sorted is for what runs at the same time.
func sorted(runs []string) []string { return slices.Sorted(slices.Values(runs)) }

// script makes a script of known and unknown parts.
func script(r *rapid.T, dir string, depth int) string {
	var lines []string
	for range rapid.IntRange(1, 5).Draw(r, "lines") {
		lines = append(lines, line(r, dir, depth))
	}
	return strings.Join(lines, "\n")
}

func line(r *rapid.T, dir string, depth int) string {
	name := rapid.SampledFrom([]string{"A", "B", "ETCD_NAME"})
	word := rapid.Custom(wordOf)
	simple := []func() string{
		func() string { return name.Draw(r, "n") + "=" + word.Draw(r, "w") },
		func() string { return "export " + name.Draw(r, "n") + "=" + word.Draw(r, "w") },
		func() string { return "export " + name.Draw(r, "n") },
		func() string { return "unset " + name.Draw(r, "n") },
		func() string { return "etcd " + word.Draw(r, "w") + " \\\n  " + word.Draw(r, "w") },
		func() string { return dir + "/etcd --name " + word.Draw(r, "w") },
		func() string { return name.Draw(r, "n") + "=" + word.Draw(r, "w") + " etcd " + word.Draw(r, "w") },
		func() string { return "cd " + dir + "/" + rapid.SampledFrom([]string{"", "a", "a/b"}).Draw(r, "d") },
		func() string { return "cd " + rapid.SampledFrom([]string{".", "..", "./.."}).Draw(r, "d") },
		func() string {
			return rapid.SampledFrom([]string{"set -a", "set +a", "true", "exit", "return"}).Draw(r, "s")
		},
		func() string { return "set -- " + word.Draw(r, "w") + " " + word.Draw(r, "w") },
		func() string { return "env " + name.Draw(r, "n") + "=x nohup etcd " + word.Draw(r, "w") },
		func() string { return "exec etcd " + word.Draw(r, "w") },
		func() string { return "eval etcd " + word.Draw(r, "w") },
	}
	if depth > 2 {
		return rapid.SampledFrom(simple).Draw(r, "kind")()
	}
	nested := func() string { return script(r, dir, depth+1) }
	return rapid.SampledFrom(append(simple,
		func() string { return "(" + nested() + "\n)" },
		func() string { return "{ " + nested() + "\n}" },
		func() string { return "{ " + nested() + "\n} | cat" },
		func() string {
			return "if [ " + word.Draw(r, "w") + " = x ]; then\n" + nested() + "\nelse\n" + nested() + "\nfi"
		},
		func() string { return "if test -d a; then\n" + nested() + "\nfi" },
		func() string {
			return "if false; then\n" + nested() + "\nelif [ -n \"$A\" ]; then\n" + nested() + "\nfi"
		},
		func() string { return "for A in " + word.Draw(r, "w") + " y; do\n" + nested() + "\ndone" },
		func() string {
			return "case " + word.Draw(r, "w") + " in x*) " + nested() + ";; *) " + nested() + ";; esac"
		},
		func() string { return "f() {\n" + nested() + "\n}\nf " + word.Draw(r, "w") },
		func() string { return line(r, dir, 3) + " && " + line(r, dir, 3) },
		func() string { return line(r, dir, 3) + " || " + line(r, dir, 3) },
		func() string {
			return "cat >s.sh <<'EOF'\n" + script(r, dir, 3) + "\nEOF\nsh s.sh " + word.Draw(r, "w")
		},
		func() string { return "cat >s.sh <<EOF\n" + script(r, dir, 3) + "\nEOF\n. ./s.sh" },
		func() string { return "while [ -z \"$C\" ]; do\nC=1\n" + nested() + "\ndone" },
		func() string { return "bash <<'EOF'\n" + script(r, dir, 3) + "\nEOF" },
	)).Draw(r, "kind")()
}

func wordOf(r *rapid.T) string {
	var out string
	for range rapid.IntRange(1, 3).Draw(r, "parts") {
		out += rapid.SampledFrom([]string{
			"x", "y", "--data-dir=", "$A", "\"$A\"", "${B}", "'$A'", "\\$A", "\"a b\"", "${A:-d}", "\"${B:-$A}\"", "${A:+z}",
			"${ETCD_NAME%x}", "${A#x}", "$(echo x y)", "\"$(echo $A)\"", "`echo q`", "$1", "\"$@\"", "$#", "$((1+2))", "\\ ",
			"''", "${B:=v}", "$(pwd)", "$PWD", "$(basename /u/v)", "${#A}", "a:b", ",", "http://[::1]:1", "$(dirname a/b)",
		}).Draw(r, "part")
	}
	return out
}
