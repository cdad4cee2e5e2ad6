package inuse

import (
	"fmt"
	"os"
	"path/filepath"
)

// OldWAL says, of an etcd that was started on an empty directory and does not join, that it has its
// WAL elsewhere than there: an old one makes it the removed member. It is empty if that does not show.
func OldWAL(dataDir, wal string) string {
	_, err := os.Stat(filepath.Join(dataDir, "member", "snap"))
	if segments, _ := filepath.Glob(filepath.Join(wal, "*.wal")); err != nil || len(segments) > 0 {
		return ""
	}
	return fmt.Sprintf("; but %s has data and %s no WAL, so that etcd has its WAL elsewhere: an old one there makes it "+
		"the removed member, which never joins (its log says \"mismatch member\"). Stop it, move %s away, and give its WAL "+
		"directory, too, by --wal-dir", dataDir, wal, dataDir)
}
