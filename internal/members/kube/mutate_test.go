package kube_test

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/etcd-backupd/backupd/internal/members"
	"github.com/etcd-backupd/backupd/internal/members/settings"
)

// identity is what must be as the member itself would have it.
var identity = []string{"name", "data-dir", "wal-dir", "initial-advertise-peer-urls", "config-file"}

// mutations returns texts that differ from text in a line.
func mutations(text string) map[string]string {
	out := map[string]string{"CRLF": strings.ReplaceAll(text, "\n", "\r\n")}
	lines := strings.SplitAfter(text, "\n")
	for i, line := range lines {
		with := func(what string, changed ...string) {
			rest := append(append([]string{}, lines[:i]...), changed...)
			out[fmt.Sprintf("line %d %s", i+1, what)] = strings.Join(append(rest, lines[i+1:]...), "")
		}
		with("away")
		with("twice", line, line)
		with("without quotes", strings.NewReplacer(`"`, "", "'", "").Replace(line))
		with("in quotes", strings.Replace(strings.TrimSuffix(line, "\n"), ": ", `: "`, 1)+"\"\n")
		with("indented", " "+line)
		with("less indented", strings.TrimPrefix(line, " "))
		with("without a continuation", strings.Replace(line, "\\\n", "\n", 1))
		with("another name", strings.ReplaceAll(line, "etcd", "etcx"))
		with("another reference", strings.ReplaceAll(line, "$(", "$$("))
		with("another variable", strings.Replace(line, "NAME", "NAM", 1))
		with("in a comment", "#"+line)
		with("another number", strings.NewReplacer("2", "3", "3", "1").Replace(line))
		if i+1 < len(lines) {
			rest := append(append([]string{}, lines[:i]...), lines[i+1], line)
			out[fmt.Sprintf("line %d after the next", i+1)] = strings.Join(append(rest, lines[i+2:]...), "")
		}
	}
	return out
}

func file(t *testing.T, name string) string {
	t.Helper()
	a, err := txtar.ParseFile(filepath.Join("testdata/read", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(a.Files[0].Data)
}

// started is what an etcd gets.
type started struct {
	args []string
	env  map[string]string
	err  error // it does not start
}

// compare reads text, and compares the members with those that the kubelet starts. It
// returns their number.
func compare(t *testing.T, what, text string, start func(p process) []started) int {
	t.Helper()
	got, err := read(text)
	if err != nil {
		return 0
	}
	var all []started
	values := []string{"hidden1", "hidden2"}
	if !strings.Contains(text, "valueFrom") {
		values = values[:1] // there are none
	}
	for _, hidden := range values {
		list, err := kubelet{hidden}.processes([]byte(text))
		if err != nil {
			t.Errorf("%s: Kubernetes refuses it: %v", what, err)
			return 0
		}
		var these []started
		for _, p := range list {
			these = append(these, start(p)...)
		}
		if len(these) != len(got) {
			t.Errorf("%s: %d starts, want %d", what, len(got), len(these))
			return 0
		}
		all = append(all, these...)
	}
	n := 0
	for i, want := range all {
		if want.err != nil {
			continue
		}
		s := got[i%len(got)]
		for _, name := range identity {
			wanted, err := flagOf(want.args, want.env, name)
			if err != nil {
				break // etcd does not start, and settings says so
			}
			have, err := flagOf(texts(s.Args), environ(s.Env), name)
			if err != nil || have != wanted {
				t.Errorf("%s: --%s is %q, want %q (%v)", what, name, have, wanted, err)
			}
			n++
		}
	}
	return n
}

func texts(words []members.Word) []string {
	var out []string
	for _, w := range words {
		out = append(out, w.Text)
	}
	return out
}

func environ(env []members.Variable) map[string]string {
	out := map[string]string{}
	for _, v := range env {
		out[v.Name] = v.Value.Text
	}
	return out
}

// direct starts etcd without a shell.
func direct(p process) []started {
	if len(p.words) == 0 || strings.HasPrefix(p.words[0], "-") {
		if strings.Contains(p.image, "/etcd:") {
			return []started{{args: p.words, env: p.env}}
		}
		return nil
	}
	if filepath.Base(p.words[0]) != "etcd" {
		return nil
	}
	return []started{{args: p.words[1:], env: p.env}}
}

// TestRead_Mutated: whatever line of a file is changed, the member is the one that
// Kubernetes would start, or the file is refused.
func TestRead_Mutated(t *testing.T) { compareMutated(t, "kubeadm.txtar") }

func compareMutated(t *testing.T, name string) {
	text := file(t, name)
	if n := compare(t, name, text, direct); n == 0 {
		t.Fatalf("%s: nothing is compared", name)
	}
	n := 0
	for what, changed := range mutations(text) {
		n += compare(t, name+" "+what, changed, direct)
	}
	if n < 1000 {
		t.Errorf("%s: only %d settings were compared", name, n)
	}
}

// TestRead_MutatedPlace: and its data is where the mount of the host is, or it is refused.
func TestRead_MutatedPlace(t *testing.T) {
	text, n := file(t, "kubeadm.txtar"), 0
	for what, changed := range mutations(text) {
		got, err := read(changed)
		if err != nil {
			continue
		}
		host, err := settings.Resolve(got[0], settings.Options{})
		if err != nil {
			continue
		}
		list, err := kubelet{}.processes([]byte(changed))
		if err != nil {
			t.Fatal(what, err)
		}
		i := slices.IndexFunc(list, func(p process) bool { return len(direct(p)) == 1 })
		if i < 0 {
			t.Fatalf("%s: the kubelet does not start etcd", what)
		}
		inside, err := flagOf(list[i].words[1:], nil, "data-dir")
		if err != nil {
			t.Fatal(what, err)
		}
		want := ""
		for at, outside := range list[i].mounts {
			if rest, ok := strings.CutPrefix(inside+"/", at+"/"); ok {
				want = filepath.Join(outside, rest)
			}
		}
		if n++; host.DataDir.Text != want {
			t.Errorf("%s: the data is in %s, want %s", what, host.DataDir.Text, want)
		}
	}
	if n < 300 {
		t.Errorf("only %d places were compared", n)
	}
}
