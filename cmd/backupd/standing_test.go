package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/restore"
)

// TestRestore_Standing: the working directory is not renamed under the shell.
func TestRestore_Standing(t *testing.T) {
	root := t.TempDir()
	here := filepath.Join(root, "all", "m1", "sub")
	if err := os.MkdirAll(here, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(here, filepath.Join(root, "link")); err != nil {
		t.Fatal(err)
	}
	t.Chdir(here)
	for line, dir := range map[string]string{
		"snapshot restore s.db --data-dir .":                                          here,
		"snapshot restore s.db --data-dir ../../m1/sub":                               here,
		"snapshot restore s.db --data-dir ..":                                         filepath.Dir(here),
		"snapshot restore s.db --data-dir " + root + "/link":                          here,
		"snapshot restore s.db --data-dir d --wal-dir .":                              here,
		"restore latest --repo file:///x --name m --data-dir .":                       here,
		"restore latest --repo file:///x --name m --data-dir . --dry-run":             here,
		"restore --finish --data-dir .":                                               here,
		"restore latest --repo file:///x --all-members --output-dir ../..":            filepath.Dir(filepath.Dir(here)),
		"restore latest --repo file:///x --all-members --output-dir " + root + "/all": root + "/all",
	} {
		code, stdout, stderr := backupd(strings.Fields(line)...)
		if code != exitRefused || stdout != "" || !strings.Contains(stderr, "such as /, and name this one "+dir+";") {
			t.Errorf("%s: exit code %d\n%s%s", line, code, stdout, stderr)
		}
	}
	for _, line := range []string{
		"snapshot restore s.db --data-dir d", "snapshot restore s.db --data-dir ../other --wal-dir ../wal",
		"restore latest --repo file:///x --all-members --output-dir .",
		"restore latest --repo file:///x --all-members --output-dir ./out",
	} {
		if code, _, stderr := backupd(strings.Fields(line)...); code != exitNotFound {
			t.Errorf("%s: exit code %d\n%s", line, code, stderr)
		}
	}
}

// TestRestore_Chown: a number that the kernel cuts, or takes for "no change", is no owner.
func TestRestore_Chown(t *testing.T) {
	for _, owner := range []string{
		"4294967296:0", "0:4294967296", "4294967295:0", "0:4294967295", "18446744073709551616:0", "-1:0", "+1:0",
		"0", "0:", ":0", "0:0:0", "0:0 ", "root", "root:", ":root",
	} {
		if o, err := parseOwner(owner); err == nil {
			t.Errorf("%s: got %+v", owner, o)
		}
	}
	if o, err := parseOwner("4294967294:7"); err != nil || o.UID != 4294967294 || o.GID != 7 {
		t.Errorf("got %+v, %v", o, err)
	}
	for owner, want := range map[string]string{
		"4294967296:0":   "user 4294967296: want a number less than 4294967295",
		"nobodyhere:0":   `this host has no user "nobodyhere": give its number`,
		"root:nohere":    `this host has no group "nohere": give its number`,
		"root:root:root": `this host has no group "root:root"`,
		"etcd":           "want user:group, by names or numbers",
	} {
		code, _, stderr := backupd("snapshot", "restore", "s.db", "--chown", owner)
		if code != exitUsage || !strings.Contains(stderr, want) {
			t.Errorf("%s: exit code %d\n%s", owner, code, stderr)
		}
	}
}

// TestRestore_ChownNames: the names of this host's users and groups are good, alone and mixed with numbers.
func TestRestore_ChownNames(t *testing.T) {
	for text, want := range map[string]restore.Owner{
		"root:root": {}, "root:7": {GID: 7}, "7:root": {UID: 7}, "0:0": {},
	} {
		if o, err := parseOwner(text); err != nil || *o != want {
			t.Errorf("%s: got %+v, %v", text, o, err)
		}
	}
}
