package main

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func TestWithTwoDashes(t *testing.T) {
	for line, want := range map[string]string{
		"snapshot restore s -data-dir=/x":           "snapshot restore s --data-dir=/x",
		"snapshot restore s -data-dir /x -name m":   "snapshot restore s --data-dir /x --name m",
		"-endpoints a:1 snapshot save s":            "--endpoints a:1 snapshot save s",
		"snapshot save -":                           "snapshot save -",
		"snapshot save -w json -":                   "snapshot save -w json -",
		"list -w=json":                              "list -w=json",
		"list -wjson":                               "list -wjson",
		"snapshot save -d example.com s":            "snapshot save -d example.com s",
		"list -help":                                "list --help",
		"list -h":                                   "list -h",
		"verify -all -stored-only -repo file:///x":  "verify --all --stored-only --repo file:///x",
		"pin latest --reason -data-dir":             "pin latest --reason -data-dir",
		"pin latest -reason -not-a-flag":            "pin latest --reason -not-a-flag",
		"pin latest --reason=-x -cluster c":         "pin latest --reason=-x --cluster c",
		"restore -dry-run -data-dir=d latest":       "restore --dry-run --data-dir=d latest",
		"snapshot save -- -data-dir=x":              "snapshot save -- -data-dir=x",
		"snapshot save -insecure-transport=false s": "snapshot save --insecure-transport=false s",
		"__complete list -data":                     "__complete list -data",
		"list --unknown -cluster c":                 "list --unknown --cluster c",
	} {
		got, err := withTwoDashes(newRootCommand(&app{}), strings.Fields(line))
		if err != nil || strings.Join(got, " ") != want {
			t.Errorf("%s: got %q, %v", line, got, err)
		}
	}
}

// TestSingleDash: nothing is restored to another folder than the one that was written.
func TestSingleDash(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.WriteFile("s.db", []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for line, want := range map[string]string{
		"snapshot restore s.db -data-dri=/x":                   "Error: -data-dri is no flag: did you mean --data-dir?",
		"snapshot restore s.db -data_dir /x":                   "did you mean --data-dir?",
		"snapshot restore s.db -pSECRET":                       "a word that begins with -p is no flag",
		"snapshot save s.db -pasword=SECRET":                   "did you mean --password?",
		"snapshot save s.db -uroot:SECRET":                     "a word that begins with -u is no flag",
		"snapshot restore s.db -d /x":                          "--data-dir has no short form",
		"snapshot restore s.db -d=/x":                          "--data-dir has no short form",
		"restore latest --repo file:///x --name m -d /x":       "--data-dir has no short form",
		"snapshot restore s.db -dexample.com":                  "a word that begins with -d is no flag",
		"list -data-dir=/x":                                    "unknown flag: --data-dir",
		"snapshot restore s.db --discovery-srv x --data-dir y": "does not talk to etcd",
	} {
		code, stdout, stderr := backupd(strings.Fields(line)...)
		if code != exitUsage || stdout != "" || !strings.Contains(stderr, want) || strings.Contains(stderr, "SECRET") {
			t.Errorf("%s: exit code %d\n%s%s", line, code, stdout, stderr)
		}
	}
	entries, err := os.ReadDir(".")
	if err != nil || len(entries) != 1 {
		t.Errorf("got %v, %v", entries, err)
	}
	// A variable for other commands is none of theirs.
	t.Setenv("ETCDCTL_DISCOVERY_SRV", "example.com")
	if code, _, stderr := backupd("snapshot", "status", "none.db"); code != exitNotFound {
		t.Errorf("exit code %d\n%s", code, stderr)
	}
}

// TestFlagNames: whether a flag takes the next word is the same in all commands.
func TestFlagNames(t *testing.T) {
	takes := map[string][]bool{}
	everyCommand(func(cmd *cobra.Command) {
		cmd.Flags().VisitAll(func(f *pflag.Flag) {
			takes[f.Name] = append(takes[f.Name], f.NoOptDefVal == "")
			if f.Shorthand != "" {
				takes["-"+f.Shorthand] = append(takes["-"+f.Shorthand], f.NoOptDefVal == "")
			}
		})
	})
	for name, all := range takes {
		if len(slices.Compact(all)) > 1 {
			t.Errorf("--%s takes a value in one command and none in another", name)
		}
	}
}
