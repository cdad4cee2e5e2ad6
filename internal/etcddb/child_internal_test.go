package etcddb

import (
	"errors"
	"fmt"
	"io/fs"
	"testing"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/etcddb/child"
)

// TestExplain calls a database damaged only if a child died of it, or if it holds
// more than any database of etcd.
func TestExplain(t *testing.T) {
	for err, want := range map[error]bool{
		&child.DeathError{How: "SIGBUS", Detail: "fault"}: true,
		child.ErrTooLong:                                        true,
		errors.New("child process was killed"):                  false,
		&child.MemoryError{Limit: 1 << 30}:                      false,
		fmt.Errorf("start child process: %w", fs.ErrPermission): false,
	} {
		if got := explain(err); errors.Is(got, backup.ErrCorrupt) != want {
			t.Errorf("%v is explained as %v, want ErrCorrupt: %v", err, got, want)
		}
		var hint *backup.HintError
		if lack := errors.As(err, new(*child.MemoryError)); errors.As(explain(err), &hint) != lack {
			t.Errorf("%v has the hint %v, want one: %v", err, hint, lack)
		}
	}
}
