package from_test

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/members/from"
)

// TestRead_Elsewhere: a file of this host may start a member on another one.
func TestRead_Elsewhere(t *testing.T) {
	hostname, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	pod := func(node string) string {
		return "apiVersion: v1\nkind: Pod\nmetadata: {name: etcd, namespace: kube-system}\nspec:\n  hostNetwork: true\n" +
			node + "  containers:\n  - name: etcd\n    command: [etcd, --name=m1, --data-dir=/d]\n" +
			"    volumeMounts: [{mountPath: /d, name: d}]\n  volumes: [{name: d, hostPath: {path: /var/lib/etcd}}]\n"
	}
	const run = "#!/bin/sh\ndocker run -v /srv/d:/d etcd etcd --name m1 --data-dir /d\n"
	for name, c := range map[string]struct{ text, docker, want string }{
		"no node":      {pod(""), "", ""},
		"this node":    {pod("  nodeName: " + hostname + "\n"), "", ""},
		"its domain":   {pod("  nodeName: " + strings.ToUpper(hostname) + ".example\n"), "", ""},
		"another node": {pod("  nodeName: node2\n"), "", ":6: the pod is bound to the node node2"},
		"docker":       {run, "", ""},
		"here":         {run, "unix:///run/docker.sock", ""},
		"there":        {run, "tcp://node2:2375", ":2: with DOCKER_HOST"},
		"no container": {"#!/bin/sh\netcd --name m1 --data-dir /d\n", "tcp://node2:2375", ""},
	} {
		t.Setenv("DOCKER_HOST", c.docker)
		_, err := from.Read(write(t, c.text), from.Options{})
		var refused *backup.RefusedError
		if c.want == "" && err != nil ||
			c.want != "" && (!errors.As(err, &refused) || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: got %v, want %q", name, err, c.want)
		}
		if _, err := from.Read(write(t, c.text), from.Options{DataDir: "/d"}); err != nil {
			t.Errorf("%s, with a place that is given: %v", name, err)
		}
		if _, err := from.Read(write(t, c.text), from.Options{All: true}); err != nil {
			t.Errorf("%s, from anywhere: %v", name, err)
		}
	}
}
