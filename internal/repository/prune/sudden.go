package prune

import (
	"fmt"
	"strings"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// SuddenError says that a policy waits for the next slot: it would remove more than half
// of all snapshots at once, and the policy before would not have.
type SuddenError struct {
	Snapshots []backup.SnapshotID // that would go
	All       int
}

func (e *SuddenError) Error() string {
	const most = 3 // are named
	var names []string
	for _, id := range e.Snapshots[:min(len(e.Snapshots), most)] {
		names = append(names, string(id))
	}
	text := strings.Join(names, ", ")
	if n := len(e.Snapshots) - most; n > 0 {
		text += fmt.Sprintf(" and %d more", n)
	}
	return fmt.Sprintf("retention would remove %d of %d snapshots at once, which stayed until now: "+
		"it waits for the next slot before it removes %s", len(e.Snapshots), e.All, text)
}
