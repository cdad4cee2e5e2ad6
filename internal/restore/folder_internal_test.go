package restore

import (
	"errors"
	"io/fs"
	"testing"

	"github.com/etcd-backupd/backupd/internal/publish"
)

// TestUnreadable: a folder that cannot be read is not said to be full.
func TestUnreadable(t *testing.T) {
	err := unreadable(&publish.UnreadableError{Dir: "/data", Err: fs.ErrPermission})
	var folder *DataDirError
	if !errors.As(err, &folder) || folder.Dir != "/data" || !errors.Is(err, fs.ErrPermission) ||
		err.Error() != `data-dir "/data" cannot be read: permission denied` {
		t.Errorf("got %v", err)
	}
}
