//go:build long

package kube_test

import (
	"bytes"
	"context"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// bin is a folder of programs for scripts: those of a container, in which etcd says with
// what it was started. No other program can be found from there.
func bin(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{
		"etcd":     `printf '%s\0' "$@" START; /usr/bin/env -0; printf 'END\0'`,
		"hostname": `echo "$POD_HOSTNAME"`, "seq": `/usr/bin/seq "$@"`, "cut": `/usr/bin/cut "$@"`, "cat": "",
		"etcdctl": "", "grep": "", "rm": "", "ping": "", "sleep": "", "curl": "",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\n"+text+"\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// byShell lets a real shell start what the command of a container says.
func byShell(t *testing.T, dir string) func(p process) []started {
	return func(p process) []started {
		if len(p.words) == 0 || p.words[0] != "/bin/sh" {
			return direct(p)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		out := filepath.Join(t.TempDir(), "out")
		f, err := os.Create(out)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		cmd := exec.CommandContext(ctx, p.words[0], p.words[1:]...)
		cmd.Dir, cmd.Stdout = t.TempDir(), f
		cmd.Env = []string{"PATH=" + dir, "POD_HOSTNAME=" + p.host, "HOSTNAME=" + p.host}
		for name, value := range p.env {
			cmd.Env = append(cmd.Env, name+"="+value)
		}
		cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
		cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
		_ = cmd.Run() // the script may be wrong
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		raw, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		return []started{parse(raw)}
	}
}

func parse(raw []byte) started {
	from, rest, ok := bytes.Cut(raw, []byte("START\x00"))
	if !ok {
		return started{err: os.ErrNotExist}
	}
	s := started{env: map[string]string{}}
	for _, w := range strings.Split(strings.TrimSuffix(string(from), "\x00"), "\x00") {
		// What the script itself has written comes before the first flag.
		if i := strings.LastIndex(w, "\n"); i >= 0 && len(s.args) == 0 {
			w = w[i+1:]
		}
		s.args = append(s.args, w)
	}
	env, _, _ := strings.Cut(string(rest), "END\x00")
	for _, v := range strings.Split(env, "\x00") {
		name, value, _ := strings.Cut(v, "=")
		s.env[name] = value
	}
	return s
}

// TestLongRead_Mutated is the test of the default suite with more files.
func TestLongRead_Mutated(t *testing.T) {
	for _, name := range []string{"set.txtar", "env.txtar"} {
		compareMutated(t, name)
	}
}

// TestLongRead_MutatedScript: the member of a script whose lines are changed is the one
// that a real shell would start.
func TestLongRead_MutatedScript(t *testing.T) {
	dir, text := bin(t), strings.Replace(file(t, "script.txtar"), "replicas: 2", "replicas: 1", 1)
	start := byShell(t, dir)
	if n := compare(t, "script.txtar", text, start); n == 0 {
		t.Fatal("nothing is compared")
	}
	n, all := 0, mutations(text)
	for _, what := range slices.Sorted(maps.Keys(all)) {
		n += compare(t, what, all[what], start)
	}
	if n < 500 {
		t.Errorf("only %d settings were compared", n)
	}
}
