package health_test

import (
	"errors"
	"testing"

	"github.com/etcd-backupd/backupd/internal/health"
)

// TestProblem_OneLine: several problems are one line of a table.
func TestProblem_OneLine(t *testing.T) {
	err := errors.New("2 problems in the configuration:\na.yaml:3:5: x: is wrong\na.yaml: is missing")
	const want = "no file: 2 problems in the configuration: a.yaml:3:5: x: is wrong; a.yaml: is missing"
	if got := health.Problem(health.Failure, "no file", err).Problem; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
