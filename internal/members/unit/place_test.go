package unit_test

import (
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/members"
	"github.com/etcd-backupd/backupd/internal/members/unit"
)

// TestRead_Places is where the data directory of a unit is on the host.
func TestRead_Places(t *testing.T) {
	for name, c := range map[string]struct{ file, unit, want string }{
		"relative":      {file, service("WorkingDirectory=/srv", "ExecStart=/e/etcd --data-dir d"), "/srv/d"},
		"root":          {file, service("ExecStart=/e/etcd --data-dir d"), "/d"},
		"home":          {file, service("WorkingDirectory=~", "ExecStart=/e/etcd --data-dir d"), "working directory"},
		"user's":        {"/home/a/.config/systemd/user/etcd.service", service("ExecStart=/e/etcd"), "working directory"},
		"user's home":   {"/etc/systemd/user/e.service", service("ExecStart=/e/etcd --data-dir %h/d"), "%h cannot"},
		"home of root":  {file, service("ExecStart=/e/etcd --data-dir %h/d"), "/root/d"},
		"state":         {file, service("ExecStart=/e/etcd --data-dir %S/%p"), "/var/lib/etcd"},
		"instance":      {"/x/etcd@m1.service", service("ExecStart=/e/etcd --data-dir /d/%i"), "/d/m1"},
		"template":      {"/x/etcd@.service", service("ExecStart=/e/etcd --data-dir /d/%i"), "template"},
		"other name":    {"/x/etcd.txt", service("ExecStart=/e/etcd --data-dir /d/%n"), "name of a unit"},
		"bound":         {file, service("BindPaths=/host:/d", "ExecStart=/e/etcd --data-dir /d/e"), "/host/e"},
		"beside bound":  {file, service("BindPaths=/host:/d", "ExecStart=/e/etcd --data-dir /f"), "/f"},
		"read-only":     {file, service("BindReadOnlyPaths=/d", "ExecStart=/e/etcd --data-dir /d"), "read-only"},
		"other root":    {file, service("RootDirectory=/jail", "ExecStart=/e/etcd --data-dir /d"), "/jail/d"},
		"image":         {file, service("RootImage=/i", "ExecStart=/e/etcd --data-dir /d"), "the volume \"/i\""},
		"private":       {file, service("PrivateTmp=yes", "ExecStart=/e/etcd --data-dir /tmp/d"), "systemd's private /tmp"},
		"not private":   {file, service("PrivateTmp=no", "ExecStart=/e/etcd --data-dir /tmp/d"), "/tmp/d"},
		"in memory":     {file, service("TemporaryFileSystem=/d", "ExecStart=/e/etcd --data-dir /d/e"), "in memory"},
		"addition only": {file + ".d/a.conf", service("ExecStart=/e/etcd"), "give the unit etcd.service"},
	} {
		m, err := host{c.file: c.unit}.resolve(c.file)
		if err == nil && m.DataDir.Text != c.want || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: got %+v, %v, want %s", name, m, err, c.want)
		}
	}
}

// TestReadVariables: a file of settings alone says nothing of how etcd is started.
func TestReadVariables(t *testing.T) {
	starts, err := unit.ReadVariables("etcd.conf", []byte(etcdConf), members.ReadOptions{})
	if err != nil || len(starts) != 1 || starts[0].Means != members.ByHand || len(starts[0].Env) != 5 {
		t.Fatalf("got %+v, %v", starts, err)
	}
	relative := strings.ReplaceAll(etcdConf, "/data/etcd", "m1.etcd")
	h := host{file: service("EnvironmentFile=/e", "ExecStart=/e/etcd"), "/e": relative}
	if m, err := h.resolve(file); err != nil || m.DataDir.Text != "/m1.etcd" {
		t.Errorf("through a unit: %v, %v", m, err)
	}
}

func TestRecognize(t *testing.T) {
	for text, want := range map[string][2]bool{ // a unit, an environment file
		etcdConf: {false, true}, strings.ReplaceAll(etcdConf, "\n", "\r\n"): {false, true},
		service("ExecStart=/e/etcd"): {true, false}, service("ExecStart=\"", "x"): {true, false},
		service("Type=notify"): {}, "A=1\n": {}, "ETCD_NAME=m1\n": {false, true}, "": {}, "#!/bin/sh\nETCD_NAME=m1\n": {},
		"ETCD_NAME=m1\netcd --data-dir /d\n": {}, "export ETCD_NAME=m1\nETCD_DATA_DIR=/d\n": {false, true},
		"ETCD_NAME=m1 etcd\netcd\n": {}, "name: m1\n": {}, "[program:etcd]\ncommand=etcd\n": {},
	} {
		got := [2]bool{unit.Recognize("f", []byte(text)), unit.RecognizeVariables("f", []byte(text))}
		if got != want {
			t.Errorf("%q: got %v, want %v", text, got, want)
		}
	}
}
