//go:build long

package alive_test

import (
	"testing"

	"github.com/etcd-backupd/backupd/internal/restore/alive"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// TestLongAsk_Versions: each etcd tells its cluster on a peer URL, and on a client URL.
func TestLongAsk_Versions(t *testing.T) {
	for _, version := range testserver.Versions(t) {
		t.Run(version, func(t *testing.T) {
			c := testserver.StartCluster(t, testserver.Options{Version: version})
			c.EnableAuth(t, "secret")
			q := question(t, c)
			found := alive.Ask(t.Context(), q)
			if found.Living != 1 || len(found.Old) == 0 || found.Old[0].Client {
				t.Errorf("found %+v", found)
			}
		})
	}
}
