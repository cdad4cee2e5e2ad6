package compare_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/etcd-backupd/backupd/internal/testserver"
)

func TestMain(m *testing.M) {
	testserver.RunChild()
	goleak.VerifyTestMain(m)
}
