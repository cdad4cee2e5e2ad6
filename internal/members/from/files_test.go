package from_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/etcd-backupd/backupd/internal/members"
	"github.com/etcd-backupd/backupd/internal/members/from"
)

// TestRead_NoFile: what is no regular file, or a large one, is neither waited for nor read into
// memory, whoever names it.
func TestRead_NoFile(t *testing.T) {
	dir := t.TempDir()
	pipe, large := filepath.Join(dir, "pipe"), filepath.Join(dir, "large")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(large, make([]byte, members.MaxFileBytes+1), 0o600); err != nil {
		t.Fatal(err)
	}
	lines := filepath.Join(dir, "lines")
	if err := os.WriteFile(lines, []byte(strings.Repeat("#\n", members.MaxFileLines+1)), 0o600); err != nil {
		t.Fatal(err)
	}
	const etcd = "etcd --name m1 --data-dir /d"
	ways := map[string]func(path string) string{
		"itself": nil,
		"environment file": func(p string) string {
			return "[Service]\nEnvironmentFile=" + p + "\nExecStart=/b/" + etcd + "\n"
		},
		"configuration file": func(p string) string { return "#!/bin/sh\netcd --config-file " + p + "\n" },
		"script":             func(p string) string { return "#!/bin/sh\n. " + p + "\n" + etcd + "\n" },
		"env_file": func(p string) string {
			return "services:\n  e:\n    image: etcd\n    env_file: " + p + "\n    command: " + etcd + "\n    volumes: [/d:/d]\n"
		},
		"env-file": func(p string) string {
			return "#!/bin/sh\ndocker run --env-file " + p + " -v /d:/d etcd " + etcd + "\n"
		},
	}
	for name, text := range ways {
		for _, path := range []string{pipe, large, lines, dir, "/dev/zero"} {
			file := path
			if text != nil {
				file = write(t, text(path))[0]
			}
			_, err := from.Read([]string{file}, from.Options{})
			var at *members.FileError
			if !errors.As(err, &at) || !strings.Contains(err.Error(), path) {
				t.Errorf("%s %s: %v", name, path, err)
			}
		}
	}
	dotenv := filepath.Join(t.TempDir(), "compose.yaml")
	text := "services:\n  e:\n    image: etcd\n    command: " + etcd + "\n    volumes: [/d:/d]\n"
	err := errors.Join(os.WriteFile(dotenv, []byte(text), 0o600),
		os.Symlink(pipe, filepath.Join(filepath.Dir(dotenv), ".env")))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := from.Read([]string{dotenv}, from.Options{}); err == nil || !strings.Contains(err.Error(), ".env") {
		t.Errorf("a pipe as .env: %v", err)
	}
}

// TestRead_Growing: a text that doubles a variable with each line is not followed to its end.
func TestRead_Growing(t *testing.T) {
	const etcd = "etcd --name m1 --data-dir /d"
	double := func(line string) string { return strings.Repeat(line+"\n", 44) }
	for name, text := range map[string]string{
		"script":   "#!/bin/sh\nA=aaaaaaaaaaaaaaaa\n" + double("A=$A$A") + "etcd --name $A\n",
		"appended": "#!/bin/bash\nA=aaaaaaaaaaaaaaaa\n" + double("A+=$A") + "etcd --name $A\n",
		"list": "#!/bin/bash\nA=(aaaaaaaaaaaaaaaa)\n" + double(`A=("${A[@]}" "${A[@]}")`) +
			`etcd --name "${A[@]}"` + "\n",
		"set":   "#!/bin/sh\nset -- aaaaaaaaaaaaaaaa\n" + double(`set -- "$@" "$@"`) + `etcd --name "$@"` + "\n",
		"words": "#!/bin/sh\nA=" + strings.Repeat("a", 60_000) + "\netcd " + strings.Repeat("$A ", 100_000) + "\n",
		"dockerfile": "FROM scratch\nENV A=aaaaaaaaaaaaaaaa\n" + double("ENV A=$A$A") +
			"ENTRYPOINT [\"etcd\", \"--name=x\"]\n",
		"unit": "[Service]\nEnvironment=A=" + strings.Repeat("a", 60_000) + "\nExecStart=/b/" + etcd + " " +
			strings.Repeat("${A}", 100_000) + "\n",
	} {
		if _, err := from.Read(write(t, text), from.Options{}); err == nil || !strings.Contains(err.Error(), "too ") {
			t.Errorf("%s: %.300v", name, err)
		}
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "etcd.yaml")
	text := "services:\n  e:\n    image: etcd\n    command: etcd --name $A --data-dir /d\n    volumes: [/d:/d]\n"
	for _, env := range []string{"A=aaaaaaaaaaaaaaaa\n" + double("A=$A$A"),
		"A=aaaaaaaaaaaaaaaa\n" + double("A=\"$A\nB=$A\"")} {
		err := errors.Join(os.WriteFile(file, []byte(text), 0o600),
			os.WriteFile(filepath.Join(dir, ".env"), []byte(env), 0o600))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := from.Read([]string{file}, from.Options{}); err == nil || !strings.Contains(err.Error(), "too long") {
			t.Errorf(".env: %.300v", err)
		}
	}
}
