package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/cluster/replace"
	"github.com/etcd-backupd/backupd/internal/members"
	"github.com/etcd-backupd/backupd/internal/members/settings"
)

// TestCheckReady: --exec starts no member with settings that begin a cluster of its own.
func TestCheckReady(t *testing.T) {
	const now = "m1=http://10.0.0.1:2380,m2=http://10.0.0.2:2380"
	needs := replace.Settings{Name: "m2", InitialCluster: now}
	for name, c := range map[string]struct {
		file, command string
		words         []string // of the refusal
	}{
		"New": {"name: m2\ninitial-cluster: " + now + "\ninitial-cluster-state: new\n", "run",
			[]string{"m2.yaml:3: initial-cluster-state: new, so it would begin a cluster of its own"}},
		"NoState": {"name: m2\ninitial-cluster: " + now + "\n", "run",
			[]string{"m2.yaml: initial-cluster-state is not set, which means new"}},
		"Nothing": {"name: m2\n", "run", []string{"initial-cluster-state is not set", "initial-cluster is not set"}},
		"OldList": {"name: m2\ninitial-cluster: " + now + ",m3=http://10.0.0.3:2380\n" +
			"initial-cluster-state: existing\n", "run",
			[]string{"m2.yaml:2: initial-cluster: is m1=", "which are not the present members, so it would never join"}},
		"OtherURL": {"name: m2\ninitial-cluster: m1=http://10.0.0.9:2380,m2=http://10.0.0.2:2380\n" +
			"initial-cluster-state: existing\n", "run", []string{"which are not the present members"}},
		"NoFlagsBesideYAML": {"name: m2\ninitial-cluster-state: new\n", `exec etcd --config-file m2.yaml "$@"`,
			[]string{"begin a cluster of its own"}},
		"Right": {"name: m2\ninitial-cluster-state: existing\n" +
			"initial-cluster: m2=http://10.0.0.2:2380,other=http://10.0.0.1:2380\n", "run", nil},
		"NoCommand": {"name: m2\ninitial-cluster-state: new\n", "", nil},
		"Discovery": {"name: m2\ninitial-cluster-state: existing\ndiscovery-srv: example.com\n", "run", nil},
	} {
		t.Run(name, func(t *testing.T) {
			at := filepath.Join(t.TempDir(), "m2.yaml")
			if err := os.WriteFile(at, []byte(c.file+"data-dir: /var/lib/etcd\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			o := settings.Options{ReadOptions: members.ReadOptions{ReadFile: os.ReadFile}}
			starts, err := settings.Read(at, nil, o.ReadOptions)
			if err != nil {
				t.Fatal(err)
			}
			host, err := settings.Resolve(starts[0], o)
			if err != nil {
				t.Fatal(err)
			}
			err = checkReady(t.Output(), host, c.command, needs)
			if len(c.words) == 0 {
				if err != nil {
					t.Error(err)
				}
				return
			}
			var refusal *backup.RefusedError
			var hint *backup.HintError
			if !errors.As(err, &refusal) || !errors.As(err, &hint) || !strings.Contains(hint.Hint, "initial-cluster to "+now) {
				t.Fatalf("got %v, %+v", err, hint)
			}
			for _, words := range c.words {
				if !strings.Contains(refusal.Reason, words) {
					t.Errorf("got %s, want %s", refusal.Reason, words)
				}
			}
		})
	}
	for command, loud := range map[string]bool{"run": true, "": false, `exec etcd "$@"`: false} {
		var said strings.Builder
		if err := checkReady(&said, nil, command, needs); err != nil {
			t.Error(err)
		}
		if is := strings.Contains(said.String(), "BEWARE") && strings.Contains(said.String(), now); is != loud {
			t.Errorf("%q says %q", command, said.String())
		}
	}
}
