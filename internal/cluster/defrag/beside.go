package defrag

import (
	"fmt"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// AgainHint says what to do if a member may be streaming.
const AgainHint = "the next slot tries it again; choose a time at which no backup runs"

// BesideStream is the refusal to defragment a member that may be streaming.
func BesideStream(format string, args ...any) error {
	return backup.WithHint(&backup.RefusedError{Reason: "defragment: beside a snapshot stream it would stop the member: " +
		fmt.Sprintf(format, args...)}, AgainHint)
}
