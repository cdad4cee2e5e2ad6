package snapshot_test

import (
	"flag"
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/etcd-backupd/backupd/internal/etcddb"
)

var update = flag.Bool("update", false, "write the golden files anew")

func TestMain(m *testing.M) {
	if code, ok := etcddb.ChildMain(); ok {
		os.Exit(code)
	}
	goleak.VerifyTestMain(m)
}
