package companion

import (
	"strings"
	"testing"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// TestAdd_Reserved: a link that leads to a reserved path, or one at it, is not taken for a Secret.
func TestAdd_Reserved(t *testing.T) {
	for _, f := range []found{
		{path: "/etc/link/secret.json", real: "/kubernetes.io/secrets/prod/keys/secret.json"},
		{path: "/kubernetes.io/secrets/prod/keys/secret.json", real: "/etc/secret.json"},
	} {
		c := &collector{about: &backup.Companions{}, real: map[string]bool{}}
		if err := c.add(f); err == nil || !strings.Contains(err.Error(), "reserved for Secrets") || len(c.found) > 0 {
			t.Errorf("%s: %v, %d found", f.path, err, len(c.found))
		}
	}
}
