//go:build machine

package main

import (
	"testing"

	"github.com/etcd-backupd/backupd/internal/testserver"
)

// TestMachine_Scripts runs the scenarios that need Debian's tools.
func TestMachine_Scripts(t *testing.T) {
	testserver.Tool(t, "age-keygen", "age")
	testserver.Tool(t, "zstd", "zstd")
	testserver.Tool(t, "promtool", "prometheus")
	runScripts(t, "testdata/machine")
}
