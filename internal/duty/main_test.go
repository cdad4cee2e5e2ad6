package duty_test

import (
	"testing"

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

// shared are the servers that tests use together. Every test has its own
// repository.
var shared testserver.Shared
