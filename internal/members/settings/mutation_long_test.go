//go:build long

package settings_test

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/testserver"
)

// mutations are what happens to a line of a file that is copied or edited by hand.
var mutations = map[string]func(line string) string{
	"gone":      func(string) string { return "" },
	"comment":   func(l string) string { return "#" + l },
	"twice":     func(l string) string { return l + "\n" + l },
	"windows":   func(l string) string { return l + "\r" },
	"indented":  func(l string) string { return "  " + l },
	"tab":       func(l string) string { return "\t" + l },
	"space":     func(l string) string { return l + " " },
	"name":      func(l string) string { return "x" + l },
	"capital":   func(l string) string { return strings.ToUpper(l[:1]) + l[1:] },
	"colon":     func(l string) string { return strings.Replace(l, ": ", ":", 1) },
	"empty":     func(l string) string { key, _, _ := strings.Cut(l, ":"); return key + ":" },
	"null":      func(l string) string { key, _, _ := strings.Cut(l, ":"); return key + ": ~" },
	"quotes":    func(l string) string { return strings.Replace(l, ": ", ": \"", 1) + "\"" },
	"apostr":    func(l string) string { return strings.Replace(l, ": ", ": '", 1) + "'" },
	"unquoted":  func(l string) string { return strings.NewReplacer("'", "", "\"", "").Replace(l) },
	"one quote": func(l string) string { return strings.Replace(l, ": ", ": \"", 1) },
	"comma":     func(l string) string { return l + "," },
	"hash":      func(l string) string { return l + " # was: x" },
	"glued":     func(l string) string { return l + "#x" },
	"folded":    func(l string) string { return strings.Replace(l, ": ", ": >-\n  ", 1) },
	"literal":   func(l string) string { return strings.Replace(l, ": ", ": |\n  ", 1) },
	"next line": func(l string) string { return strings.Replace(l, ": ", ":\n  ", 1) },
	"goes on":   func(l string) string { return l + "\n  more" },
	"list":      func(l string) string { return strings.Replace(l, ": ", ": [", 1) + "]" },
	"number":    func(l string) string { key, _, _ := strings.Cut(l, ":"); return key + ": 0x10" },
	"truth":     func(l string) string { key, _, _ := strings.Cut(l, ":"); return key + ": yes" },
	"document":  func(l string) string { return "---\n" + l },
	"tag":       func(l string) string { return strings.Replace(l, ": ", ": !!str ", 1) },
	"escape":    func(l string) string { return strings.Replace(l, ": ", ": \"\\u0061", 1) + "\"" },
	"relative":  func(l string) string { return strings.Replace(l, ": /", ": ", 1) },
	"slashes":   func(l string) string { return strings.Replace(l, ": /", ": //./", 1) + "/.." },
	"tilde":     func(l string) string { return strings.Replace(l, ": /", ": ~/", 1) },
	"variable":  func(l string) string { return l + "$HOME" },
	"equals":    func(l string) string { return strings.Replace(l, ": ", "=", 1) },
}

// TestLongMutations_File changes each line of etcd's configuration file in each way: what comes of
// it here is what each etcd takes from it, or nothing.
func TestLongMutations_File(t *testing.T) {
	for _, version := range testserver.Versions(t) {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			lines := []string{
				"name: 'm1'", "data-dir: " + dir + "/data", "wal-dir: " + dir + "/wal",
				"listen-peer-urls: http://127.0.0.1:0", "listen-client-urls: http://127.0.0.1:0",
				"advertise-client-urls: http://127.0.0.1:1", "initial-advertise-peer-urls: http://10.0.0.1:2380",
				"initial-cluster: m1=http://10.0.0.1:2380,m2=http://10.0.0.2:2380", "initial-cluster-token: 'a token'",
				"initial-cluster-state: new", "quota-backend-bytes: 8589934592",
			}
			var tally tally
			for i := range lines {
				for name, mutate := range mutations {
					changed := slices.Clone(lines)
					changed[i] = mutate(changed[i])
					write(t, filepath.Join(dir, "etcd.yml"), strings.Join(changed, "\n")+"\n")
					tally.add(t, version+" "+name+": "+changed[i],
						compare(t, version, dir, []string{"--config-file", dir + "/etcd.yml"}, nil))
				}
			}
			tally.report(t, version)
		})
	}
}

// TestLongMutations_Process changes each argument and each variable.
func TestLongMutations_Process(t *testing.T) {
	words := map[string]func(string) []string{
		"gone":        func(string) []string { return nil },
		"twice":       func(w string) []string { return []string{w, w} },
		"empty":       func(w string) []string { name, _, _ := strings.Cut(w, "="); return []string{name + "="} },
		"name":        func(w string) []string { return []string{strings.Replace(w, "=", "x=", 1)} },
		"value":       func(w string) []string { return []string{w + "x"} },
		"two words":   func(w string) []string { return strings.SplitN(w, "=", 2) },
		"one dash":    func(w string) []string { return []string{strings.Replace(w, "--", "-", 1)} },
		"three":       func(w string) []string { return []string{"-" + w} },
		"quoted":      func(w string) []string { return []string{strings.Replace(w, "=", "=\"", 1) + "\""} },
		"windows":     func(w string) []string { return []string{w + "\r"} },
		"backslash":   func(w string) []string { return []string{w, "\\"} },
		"comma":       func(w string) []string { return []string{w + ","} },
		"space":       func(w string) []string { return []string{w + " "} },
		"end":         func(w string) []string { return []string{w, "--"} },
		"capital":     func(w string) []string { return []string{strings.ToUpper(w)} },
		"small":       func(w string) []string { return []string{strings.ToLower(w)} },
		"underscore":  func(w string) []string { return []string{strings.ReplaceAll(w, "-", "_")} },
		"and another": func(w string) []string { return []string{w, "--enable-pprof", "true"} },
		"and file":    func(w string) []string { return []string{w, "--config-file="} },
	}
	for _, version := range testserver.Versions(t) {
		t.Run(version, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			settings := []string{
				"name=m1", "data-dir=data", "wal-dir=" + dir + "/wal", "listen-peer-urls=http://127.0.0.1:0",
				"listen-client-urls=http://127.0.0.1:0", "advertise-client-urls=http://127.0.0.1:1",
				"initial-advertise-peer-urls=http://10.0.0.1:2380,http://10.0.0.2:2380", "initial-cluster-state=new",
				"initial-cluster=m1=http://10.0.0.1:2380,m1=http://10.0.0.2:2380", "auto-compaction-retention=1",
				"pre-vote=true",
			}
			var tally tally
			for i := range settings {
				for name, mutate := range words {
					// The others are flags or variables by turns, so that each stands beside both.
					for _, variables := range []bool{false, true} {
						var args, env []string
						for j, s := range settings {
							asVariable := (j%2 == 0) == variables
							w := "--" + s
							if asVariable {
								key, value, _ := strings.Cut(s, "=")
								w = "ETCD_" + strings.ToUpper(strings.ReplaceAll(key, "-", "_")) + "=" + value
							}
							out := []string{w}
							if j == i {
								out = mutate(w)
							}
							if asVariable && len(out) < 2 {
								env = append(env, out...)
							} else if !asVariable {
								args = append(args, out...)
							} else {
								env = append(env, w)
							}
						}
						tally.add(t, fmt.Sprint(version, " ", name, " ", args, env), compare(t, version, dir, args, env))
					}
				}
			}
			tally.report(t, version)
		})
	}
}

// tally counts what came of mutations.
type tally struct{ same, refused int }

func (c *tally) add(t *testing.T, what, problem string) {
	t.Helper()
	switch {
	case problem == "":
		c.same++
	case strings.HasPrefix(problem, "we refuse"):
		c.refused++
	default:
		t.Errorf("%s: %s", what, problem)
	}
}

func (c *tally) report(t *testing.T, version string) {
	t.Helper()
	t.Logf("%s: %d as etcd takes it, %d refused", version, c.same, c.refused)
	if c.same == 0 || c.refused == 0 {
		t.Error("nothing was compared")
	}
}
