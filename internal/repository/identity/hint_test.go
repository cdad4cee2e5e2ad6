package identity_test

import (
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/repository/identity"
)

// TestHint_RecordOfAStoppedDaemon: a daemon that runs would write its record again, so it is
// to be stopped before the record is removed.
func TestHint_RecordOfAStoppedDaemon(t *testing.T) {
	for _, e := range []identity.AbsentError{{Known: "a"}, {Known: "a", Found: "b"}} {
		hint := e.Hint("--repo file:///backups", "repository-id")
		last := 0
		for _, step := range []string{"stop the daemon", "remove its record", "and start it"} {
			at := strings.Index(hint, step)
			if at <= last {
				t.Errorf("%q comes too early or not at all: %s", step, hint)
			}
			last = at
		}
	}
}

// TestHint_Bucket: a bucket has no disk that could be mounted.
func TestHint_Bucket(t *testing.T) {
	for _, e := range []identity.AbsentError{{}, {Known: "a"}, {Known: "a", Found: "b"}} {
		for _, flags := range []string{"--repo s3://backups/etcd --s3-region us-east-1", "--repo 's3://backups/a b'"} {
			hint := e.Hint(flags, "repository-id")
			if strings.Contains(hint, "disk") || !strings.HasPrefix(hint, "are the bucket and the prefix right?") {
				t.Errorf("%+v: %s", e, hint)
			}
		}
		if hint := e.Hint("--repo file:///backups", "repository-id"); !strings.Contains(hint, "disk") {
			t.Errorf("%+v: %s", e, hint)
		}
	}
}
