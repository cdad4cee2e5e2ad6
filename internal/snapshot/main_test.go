package snapshot_test

import (
	"flag"
	"fmt"
	"os"
	"testing"

	"go.uber.org/goleak"

	"github.com/etcd-backupd/backupd/internal/testserver"
)

var update = flag.Bool("update", false, "write the golden files")

func TestMain(m *testing.M) {
	testserver.RunChild()
	if job := os.Getenv(killEnv); job != "" {
		if err := runKillJob(job); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}
