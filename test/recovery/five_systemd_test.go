//go:build long

package recovery_test

import (
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// systemdUnit is what a service manager makes of a unit and its additions.
type systemdUnit struct {
	exec, user, dir, kind string
	env                   []string
}

// readUnit reads a unit as systemd.unit(5) and systemd.exec(5) have it, as far as these
// deployments need it.
func readUnit(t *testing.T, path string) systemdUnit {
	t.Helper()
	dropIns, err := filepath.Glob(path + ".d/*.conf")
	if err != nil {
		t.Fatal(err)
	}
	u := systemdUnit{dir: "/"}
	var files []string
	for _, file := range append([]string{path}, dropIns...) {
		for _, line := range unitLines(t, file) {
			key, value, _ := strings.Cut(line, "=")
			value = strings.TrimSpace(value)
			switch strings.TrimSpace(key) {
			case "ExecStart":
				u.exec = value
			case "User":
				u.user = value
			case "WorkingDirectory":
				u.dir = value
			case "Type":
				u.kind = value
			case "Environment":
				u.env = append(u.env, strings.Trim(value, `"`))
			case "EnvironmentFile":
				files = append(files, value)
			}
		}
	}
	for _, file := range files {
		name, optional := strings.CutPrefix(file, "-")
		if _, err := os.Stat(name); err != nil && optional {
			continue
		}
		u.env = append(u.env, environmentFile(t, name)...)
	}
	return u
}

// unitLines are the logical lines.
func unitLines(t *testing.T, file string) (out []string) {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var current string
	for line := range strings.SplitSeq(string(raw), "\n") {
		if trimmed := strings.TrimSpace(line); strings.HasPrefix(trimmed, "#") || strings.HasPrefix(trimmed, ";") {
			continue
		}
		if joined, more := strings.CutSuffix(line, `\`); more {
			current += joined + " "
			continue
		}
		out, current = append(out, current+line), ""
	}
	return out
}

// environmentFile reads NAME=value lines; the last one of a name counts.
func environmentFile(t *testing.T, file string) (out []string) {
	t.Helper()
	for _, line := range unitLines(t, file) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if !ok || strings.Contains(name, " ") {
			continue
		}
		value = strings.TrimSpace(value)
		if len(value) > 1 && strings.ContainsRune(`"'`, rune(value[0])) && value[len(value)-1] == value[0] {
			value = value[1 : len(value)-1]
		}
		out = append(out, name+"="+value)
	}
	return out
}

var variable = regexp.MustCompile(`\$\$|\$\{[A-Za-z_0-9]+\}`)

// words are the arguments of ExecStart: split at blanks outside of quotes first, variables in
// them replaced then.
func (u systemdUnit) words(t *testing.T) (out []string) {
	t.Helper()
	var word strings.Builder
	begun, quote := false, byte(0)
	for i := 0; i < len(u.exec); i++ {
		c := u.exec[i]
		switch {
		case c == '\\' && i+1 < len(u.exec):
			i++
			word.WriteByte(u.exec[i])
			begun = true
		case quote != 0 && c == quote:
			quote = 0
		case quote == 0 && (c == '"' || c == '\''):
			quote, begun = c, true
		case quote == 0 && (c == ' ' || c == '\t'):
			if begun {
				out = append(out, word.String())
			}
			begun = false
			word.Reset()
		default:
			word.WriteByte(c)
			begun = true
		}
	}
	if begun {
		out = append(out, word.String())
	}
	for i, w := range out {
		out[i] = variable.ReplaceAllStringFunc(w, func(m string) string {
			if m == "$$" {
				return "$"
			}
			value := ""
			for _, v := range u.env {
				if name, got, _ := strings.Cut(v, "="); name == m[2:len(m)-1] {
					value = got
				}
			}
			return value
		})
	}
	return out
}

// systemctlStart starts a unit; that of type notify is started when it says so, or ends.
func (s *site) systemctlStart(t *testing.T, path string) *process {
	t.Helper()
	u := readUnit(t, path)
	env := slices.Clone(u.env)
	if u.kind != "notify" {
		return s.start(t, u.words(t), env, u.dir, u.user)
	}
	dir, err := os.MkdirTemp("/tmp", "notify") // the name of a socket must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	s.giveAway(t, dir)
	socket := filepath.Join(dir, "s")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: socket, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	if err := os.Chmod(socket, 0o777); err != nil {
		t.Fatal(err)
	}
	p := s.start(t, u.words(t), append(env, "NOTIFY_SOCKET="+socket), u.dir, u.user)
	go func() {
		for buf := make([]byte, 1<<10); ; {
			n, err := l.Read(buf)
			if err != nil {
				return // the end of the test
			}
			if strings.Contains(string(buf[:n]), "READY=1") {
				close(p.notified)
				return
			}
		}
	}()
	return p
}

// started waits for units of type notify: those of one cluster wait for each other.
func started(t *testing.T, ps ...*process) {
	t.Helper()
	for _, p := range ps {
		select {
		case <-p.notified:
		case <-p.ended:
			t.Fatalf("%q has ended:\n%s", p.cmd.Args, p.said())
		case <-time.After(time.Minute):
			t.Fatalf("%q has not said that it is ready:\n%s", p.cmd.Args, p.said())
		}
	}
}
