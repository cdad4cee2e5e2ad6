package daemon

import (
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/etcd-backupd/backupd/internal/etcddb"
)

func TestMain(m *testing.M) {
	if code, ok := etcddb.ChildMain(); ok {
		os.Exit(code)
	}
	goleak.VerifyTestMain(m)
}
