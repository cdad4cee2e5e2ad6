package main

import (
	"errors"
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// TestPrintFacts_Words: one of a kind is not many, and -1 is no revision.
func TestPrintFacts_Words(t *testing.T) {
	var out strings.Builder
	m := &backup.Manifest{Capture: backup.Capture{Revision: 2, CompactRevision: -1, Keys: 1, Leases: 1}}
	if err := printFacts(&out, m); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"2, never compacted\n", " 1 key, 1 lease, "} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, out.String())
		}
	}
}

// TestOfCluster: the name of a cluster is said once.
func TestOfCluster(t *testing.T) {
	for text, want := range map[string]string{
		"cluster prod has two histories": "cluster prod has two histories",
		"cluster prod2 is down":          "cluster prod: cluster prod2 is down",
		"no member answers":              "cluster prod: no member answers",
	} {
		if got := ofCluster("prod", errors.New(text)).Error(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
