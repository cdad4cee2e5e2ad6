package manifests

import (
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// What supervisord 4 knows in the section of a program, and how it reads each value.
var supervisord = func() map[string]func(string) bool {
	text := func(v string) bool { return v != "" }
	truth := func(v string) bool {
		return slices.Contains([]string{"true", "false", "yes", "no", "on", "off", "1", "0"}, strings.ToLower(v))
	}
	number := func(v string) bool { _, err := strconv.Atoi(v); return err == nil }
	size := func(v string) bool { return regexp.MustCompile(`^(?i)\d+(KB|MB|GB)?$`).MatchString(v) }
	return map[string]func(string) bool{
		"command": text, "user": text, "directory": text, "stdout_logfile": text, "process_name": text,
		"umask":       regexp.MustCompile(`^[0-7]+$`).MatchString,
		"environment": regexp.MustCompile(`^\w+="[^"]*"(,\w+="[^"]*")*$`).MatchString,
		"autostart":   truth, "stopasgroup": truth, "killasgroup": truth, "redirect_stderr": truth,
		"autorestart": func(v string) bool { return truth(v) || v == "unexpected" },
		"exitcodes":   regexp.MustCompile(`^\d+(,\d+)*$`).MatchString,
		"startsecs":   number, "stopwaitsecs": number, "stdout_logfile_backups": number,
		"stopsignal":              regexp.MustCompile(`^(TERM|HUP|INT|QUIT|KILL|USR1|USR2)$`).MatchString,
		"stdout_logfile_maxbytes": size,
	}
}()

// TestSupervisord reads the file by supervisord's rules: a wrong key or value there
// is found when the service is started, or never.
func TestSupervisord(t *testing.T) {
	got, in := map[string]string{}, ""
	for line := range strings.Lines(read(t, deploy+"/supervisord/backupd.conf")) {
		line = strings.TrimSpace(line)
		key, value, ok := strings.Cut(line, "=")
		switch {
		case line == "" || strings.HasPrefix(line, ";"):
		case strings.HasPrefix(line, "["):
			in = line
		case !ok || in != "[program:backupd]":
			t.Errorf("%s in section %s", line, in)
		case supervisord[key] == nil:
			t.Errorf("supervisord knows no %s", key)
		case !supervisord[key](value):
			t.Errorf("%s=%s is not what supervisord reads", key, value)
		case regexp.MustCompile(`\s[;#]|%`).MatchString(value):
			t.Errorf("%s=%s: supervisord takes the rest for a comment, or expands it", key, value)
		default:
			got[key] = value
		}
	}
	command := strings.Fields(got["command"])
	if len(command) != 4 || command[0] != "/usr/bin/backupd" {
		t.Fatalf("command=%s", got["command"])
	}
	if out, err := run(t, backupd(t), append(command[1:], "--help")...); err != nil || !strings.Contains(out, "Usage:") {
		t.Errorf("%s: %v\n%s", got["command"], err, out)
	}
	for key, want := range map[string]string{
		"autorestart": "unexpected", "exitcodes": "0,64,78", "stopsignal": "TERM", "stopasgroup": "false",
		"killasgroup": "true", "startsecs": "0",
	} {
		if got[key] != want {
			t.Errorf("%s=%s, want %s", key, got[key], want)
		}
	}
	stop, err := strconv.Atoi(got["stopwaitsecs"])
	unit := unitValues(t, "backupd.service", "TimeoutStopSec")
	if err != nil || len(unit) != 1 || unit[0] != "2min" || stop != 120 {
		t.Errorf("it is killed after %d s, and systemd's unit after %q", stop, unit)
	}
}

// TestSupervisordPage runs the commands of the page, in a folder in place of the root.
func TestSupervisordPage(t *testing.T) {
	root, c := t.TempDir(), newContents(t)
	checkout := filepath.Join(root, "checkout")
	move := strings.NewReplacer("/etc/", root+"/etc/", "/var/", root+"/var/")
	for _, file := range []string{"supervisord/backupd.conf", "compose/backupd.yaml"} {
		write(t, filepath.Join(checkout, "deploy", file), []byte(move.Replace(read(t, filepath.Join(deploy, file)))))
	}
	for _, name := range []string{"ca.crt", "client.crt", "client.key", "s3-credentials"} {
		write(t, filepath.Join(checkout, name), c.of(name))
	}
	bin := filepath.Join(root, "bin")
	for name, script := range map[string]string{
		"useradd": "echo useradd", "supervisorctl": `echo supervisorctl "$1"`, "runuser": `shift 3; exec "$@"`,
	} {
		write(t, filepath.Join(bin, name), []byte("#!/bin/sh\n"+script+"\n"))
		if out, err := run(t, "chmod", "755", filepath.Join(bin, name)); err != nil {
			t.Fatal(out)
		}
	}
	// Installing needs the binary, the folders, and a user; check asks an etcd, and the last command a daemon.
	script := strings.Join(blocks(t, "supervisord.md", "sh"), "\n")
	if !strings.HasSuffix(script, "\nbackupd status\n") {
		t.Fatalf("the page ends with no look at the daemon:\n%s", script)
	}
	_, script, _ = strings.Cut(script, " -o /usr/bin/backupd ./cmd/backupd\n")
	script = move.Replace(strings.NewReplacer(
		"runuser -u backupd -- backupd check --config /etc/backupd/backupd.yaml\n", "", "-o backupd", "-o $(id -u)",
		"-g backupd", "-g $(id -g)", "\nbackupd status\n", "\n",
	).Replace(script))
	write(t, filepath.Join(root, "etc/supervisor/conf.d/README"), nil)
	cmd := exec.CommandContext(t.Context(), "bash", "-euxo", "pipefail", "-c", script)
	cmd.Dir = checkout
	cmd.Env = []string{"PATH=" + bin + ":" + filepath.Dir(backupd(t)) + ":/usr/bin:/bin", "TMPDIR=" + t.TempDir()}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, want := range []string{"backupd.yaml is good", "supervisorctl update"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("%q is not in what the commands say:\n%s", want, out)
		}
	}
}
