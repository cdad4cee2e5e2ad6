package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/cluster/replace"
	"github.com/etcd-backupd/backupd/internal/members/from"
	"github.com/etcd-backupd/backupd/internal/members/settings"
)

// TestPrintStart: the two settings are printed as that source takes them: in another form etcd
// does not see them, or does not start.
func TestPrintStart(t *testing.T) {
	const now = "m1=http://10.0.0.1:2380,m2=http://10.0.0.2:2380"
	needs := replace.Settings{Name: "m2", InitialCluster: now}
	const (
		yaml      = "  initial-cluster: " + now + "\n  initial-cluster-state: existing\n"
		flags     = "  --initial-cluster=" + now + "\n  --initial-cluster-state=existing\n"
		variables = "  ETCD_INITIAL_CLUSTER=\"" + now + "\"\n  ETCD_INITIAL_CLUSTER_STATE=\"existing\"\n"
	)
	const unit = "[Service]\nExecStart=/usr/bin/etcd"
	for name, c := range map[string]struct {
		files map[string]string // the first one, "m2.…", is that of --from
		want  string
	}{
		"YAML": {map[string]string{
			"m2.yaml": "name: m2\ndata-dir: /d\ninitial-cluster: m2=http://10.0.0.2:2380\ninitial-cluster-state: new\n",
		}, "Set for m2, in its YAML file " +
			"(initial-cluster is at DIR/m2.yaml:3, initial-cluster-state is at DIR/m2.yaml:4):\n" + yaml},
		"YAMLOfUnit": {map[string]string{
			"m2.service": unit + " --config-file DIR/etcd.yaml\n", "etcd.yaml": "name: m2\ndata-dir: /d\n",
		}, "in its YAML file (DIR/etcd.yaml does not set initial-cluster, " +
			"DIR/etcd.yaml does not set initial-cluster-state):\n" + yaml},
		"Script": {map[string]string{
			"m2.sh": "#!/bin/sh\nexec etcd --name m2 --data-dir /d \\\n  --initial-cluster m2=http://10.0.0.2:2380\n",
		}, "Set for m2, as flags (initial-cluster is at DIR/m2.sh:3, DIR/m2.sh:2 does not set initial-cluster-state):\n" +
			flags},
		"Unit": {map[string]string{"m2.service": unit + " --name m2 --data-dir /d\n"},
			"as flags (DIR/m2.service:2 does not set initial-cluster, DIR/m2.service:2 does not set initial-cluster-state):\n" +
				flags},
		"UnitWithVariables": {map[string]string{
			"m2.service": "[Service]\nEnvironmentFile=DIR/env\nExecStart=/usr/bin/etcd --name m2 --data-dir /d\n",
			"env":        "ETCD_INITIAL_CLUSTER=m2=http://10.0.0.2:2380\n",
		}, "as variables (initial-cluster is at DIR/env:1, DIR/env does not set initial-cluster-state):\n" + variables},
		"Both": {map[string]string{
			"m2.service": "[Service]\nEnvironmentFile=DIR/env\nExecStart=/usr/bin/etcd --name m2 --data-dir /d " +
				"--initial-cluster-state new\n",
			"env": "ETCD_INITIAL_CLUSTER=m2=http://10.0.0.2:2380\n",
		}, "as variables (initial-cluster is at DIR/env:1):\n  ETCD_INITIAL_CLUSTER=\"" + now + "\"\n" +
			"Set for m2, as flags (initial-cluster-state is at DIR/m2.service:3):\n  --initial-cluster-state=existing\n"},
		"Variables": {map[string]string{"m2.env": "ETCD_NAME=m2\nETCD_DATA_DIR=/d\n" +
			"ETCD_LISTEN_PEER_URLS=http://10.0.0.2:2380\nETCD_INITIAL_ADVERTISE_PEER_URLS=http://10.0.0.2:2380\n"},
			"as variables (DIR/m2.env does not set initial-cluster, DIR/m2.env does not set initial-cluster-state):\n" +
				variables},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			file := ""
			for name, text := range c.files {
				at := filepath.Join(dir, name)
				if strings.HasPrefix(name, "m2.") {
					file = at
				}
				if err := os.WriteFile(at, []byte(strings.ReplaceAll(text, "DIR/", dir+"/")), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			var got strings.Builder
			printStart(&got, startHost(t, file), needs)
			if text := strings.ReplaceAll(got.String(), dir, "DIR"); !strings.Contains(text, c.want+"Then start it") {
				t.Errorf("got\n%swant\n%s", text, c.want)
			}
		})
	}
	var got strings.Builder
	printStart(&got, nil, needs)
	if !strings.Contains(got.String(), variables) || !strings.Contains(got.String(), yaml) {
		t.Errorf("without files: %s", got.String())
	}
}

func startHost(t *testing.T, file string) *settings.Host {
	t.Helper()
	found, err := from.Read([]string{file}, from.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return found.Host
}
