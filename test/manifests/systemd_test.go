package manifests

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var units = []string{"backupd.service", "backupd-once.service", "backupd-once.timer"}

// unitValues returns the values of one key of a unit.
func unitValues(t *testing.T, unit, key string) []string {
	t.Helper()
	var out []string
	for line := range strings.Lines(read(t, filepath.Join(deploy, "systemd", unit))) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), "="); ok && k == key {
			out = append(out, v)
		}
	}
	return out
}

func TestSystemdVerify(t *testing.T) {
	analyze := tool(t, "systemd-analyze", "systemd")
	dir, program := t.TempDir(), backupd(t)
	var paths []string
	for _, unit := range units {
		path := filepath.Join(dir, unit)
		// A program that is not there is an error to systemd.
		write(t, path, []byte(strings.ReplaceAll(read(t, filepath.Join(deploy, "systemd", unit)), "/usr/bin/backupd ",
			program+" ")))
		paths = append(paths, path)
	}
	out, err := run(t, analyze, append([]string{"verify", "--man=no"}, paths...)...)
	if err != nil || strings.TrimSpace(out) != "" {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}

func TestSystemdSecurity(t *testing.T) {
	analyze := tool(t, "systemd-analyze", "systemd")
	for _, unit := range units[:2] {
		// 1.5 of 10; what is left is the network.
		out, err := run(t, analyze, "security", "--offline=true", "--threshold=15",
			filepath.Join(deploy, "systemd", unit))
		if err != nil {
			t.Errorf("%s: %v\n%s", unit, err, out)
		}
	}
}

// TestUnitsAgree: the daemon and the single run are hardened alike, and share
// user, folders and credentials.
func TestUnitsAgree(t *testing.T) {
	section := func(unit string) []string {
		_, after, _ := strings.Cut(read(t, filepath.Join(deploy, "systemd", unit)), "LoadCredential=")
		after, _, _ = strings.Cut(after, "[Install]")
		return strings.Fields(after)
	}
	if a, b := section(units[0]), section(units[1]); len(a) < 40 || !slices.Equal(a, b) {
		t.Errorf("%s and %s differ from their credentials on", units[0], units[1])
	}
	for key, want := range map[string]string{
		"Type": "notify", "WatchdogSec": "60s", "ExecReload": "/bin/kill -HUP $MAINPID",
		"RestartPreventExitStatus": "64 78", "KillMode": "mixed",
	} {
		if got := unitValues(t, "backupd.service", key); !slices.Equal(got, []string{want}) {
			t.Errorf("backupd.service: %s=%q, want %q", key, got, want)
		}
	}
	if got := unitValues(t, "backupd-once.timer", "Persistent"); !slices.Equal(got, []string{"true"}) {
		t.Errorf("backupd-once.timer: Persistent=%q: a missed run would not be made up for", got)
	}
}
