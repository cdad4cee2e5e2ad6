package daemon_test

import (
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/etcd-backupd/backupd/internal/testserver"
)

func TestMain(m *testing.M) {
	testserver.RunChild()
	goleak.VerifyTestMain(suite{m})
}

// suite ends the shared servers after the tests and before leaks are looked for.
type suite struct{ *testing.M }

func (s suite) Run() int {
	code := s.M.Run()
	shared.End()
	return code
}

// shared are the servers that tests use together. Each test has its own
// repository. A test that kills, compacts or configures a server starts its own.
var shared testserver.Shared

// await waits for a condition, and fails the test for good where it does not come.
func await(t *testing.T, condition string, ok func() bool) {
	t.Helper()
	if !testserver.EventuallyIn(t, time.Minute, condition, ok) {
		t.FailNow()
	}
}
