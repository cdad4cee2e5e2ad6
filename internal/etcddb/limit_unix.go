//go:build unix

package etcddb

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// limitChild forbids core dumps: they would hold the keys of the database.
func limitChild() {
	none := syscall.Rlimit{}
	if err := syscall.Setrlimit(syscall.RLIMIT_CORE, &none); err != nil {
		fmt.Fprintf(os.Stderr, "forbid core dumps: %v\n", err)
	}
}

// lockShared refuses a database that a running etcd holds open: it changes
// under the reader. File systems without locks are trusted.
func lockShared(file *os.File) error {
	err := syscall.Flock(int(file.Fd()), syscall.LOCK_SH|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return fmt.Errorf("database is in use by another process, like a running etcd")
	}
	return nil
}
