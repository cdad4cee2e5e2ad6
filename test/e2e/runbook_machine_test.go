//go:build machine

package e2e_test

import (
	"testing"

	"github.com/etcd-backupd/backupd/internal/testserver"
)

// TestMachine_Runbook runs every command of the runbook, with Debian's age and
// zstd where it says so.
func TestMachine_Runbook(t *testing.T) {
	testserver.Tool(t, "age-keygen", "age")
	testserver.Tool(t, "zstd", "zstd")
	r, last := testRunbook(t, func(t *testing.T, r *runbook) {
		r.sh(t, `age-keygen -o "$BACKUPD_IDENTITY" && age-keygen -y "$BACKUPD_IDENTITY" > "$BACKUPD_RECIPIENTS_FILE"`)
	})
	r.sh(t, last)
}
