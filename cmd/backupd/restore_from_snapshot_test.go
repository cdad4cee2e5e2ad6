package main

import (
	"cmp"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/repository"
)

// ofHost finds the one snapshot of this host, or the one without companion files if no other host is
// named, and makes its companion files those of another host. It sets a variable to the id.
func ofHost(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 || len(args) > 3 {
		ts.Fatalf("usage: ofhost VARIABLE FOLDER [HOST]")
	}
	here, err := os.Hostname()
	ts.Check(err)
	paths, err := filepath.Glob(filepath.Join(ts.MkAbs(args[1]), "*.json"))
	ts.Check(err)
	for _, path := range paths {
		raw, err := os.ReadFile(path)
		ts.Check(err)
		m, err := backup.ParseManifest(raw)
		ts.Check(err)
		switch {
		case len(args) == 2 && m.Companions == nil:
			ts.Setenv(args[0], string(m.ID))
			return
		case len(args) == 3 && m.Companions != nil && m.Companions.Host == here:
			m.Companions.Host = args[2]
			raw, err = m.Marshal()
			ts.Check(cmp.Or(err, os.WriteFile(path, raw, 0o600)))
			ts.Setenv(args[0], string(m.ID))
			return
		}
	}
	ts.Fatalf("there is no such snapshot")
}

// TestPutBack: the command that extracts the files reaches the repository as this one did.
func TestPutBack(t *testing.T) {
	cmd := newRestoreCommand(&app{})
	if err := cmd.ParseFlags([]string{
		"--repo=s3://b/p", "--s3-endpoint=http://minio:9000", "--s3-region=here", "--identity=k1", "--identity=k2",
		"--data-dir=/d",
	}); err != nil {
		t.Fatal(err)
	}
	s := &storedFiles{cmd: cmd, in: (&repository.Repository{}).Cluster("prod"), m: &backup.Manifest{ID: "ID"}}
	for _, want := range []string{
		"backupd companions ID --cluster=prod ", " --repo=s3://b/p ", " --s3-endpoint=http://minio:9000 ",
		" --s3-region=here ", " --identity=k1 --identity=k2 --output-dir=DIR",
	} {
		if got := s.putBack(); !strings.Contains(got, want) || strings.Contains(got, "data-dir") {
			t.Errorf("%s, want %s", got, want)
		}
	}
}
