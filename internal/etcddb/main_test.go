package etcddb_test

import (
	"context"
	"fmt"
	"os"
	"runtime/debug"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"

	"github.com/etcd-backupd/backupd/internal/etcddb"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// boltCheckEnv names a database that this program, started again, lets bbolt
// itself check, and inspectEnv one that it inspects.
const (
	boltCheckEnv = "ETCDDB_TEST_BOLT_CHECK"
	inspectEnv   = "ETCDDB_TEST_INSPECT"
)

func TestMain(m *testing.M) {
	testserver.RunChild()
	if path := os.Getenv(boltCheckEnv); path != "" {
		os.Exit(boltCheck(path))
	}
	if path := os.Getenv(inspectEnv); path != "" {
		f, err := etcddb.Inspect(context.Background(), path)
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println(f.TotalKeys, "keys")
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// boltCheck opens and reads a database the way etcdutl snapshot status does.
func boltCheck(path string) int {
	debug.SetMaxStack(32 << 20) // a loop of pages is a stack without end
	db, err := bolt.Open(path, 0o400, &bolt.Options{ReadOnly: true, Timeout: time.Second})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	err = db.View(func(tx *bolt.Tx) error {
		for err := range tx.Check() {
			return err
		}
		return tx.ForEach(func(_ []byte, b *bolt.Bucket) error {
			return b.ForEach(func(_, _ []byte) error { return nil })
		})
	})
	if err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}
