//go:build long

package confirm_test

import (
	"fmt"
	"testing"

	"github.com/etcd-backupd/backupd/internal/cluster"
	"github.com/etcd-backupd/backupd/internal/confirm"
	"github.com/etcd-backupd/backupd/internal/restore"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

// TestLongRun_Versions: every etcd answers what the plan expects, also when each member was
// started again, and also if a tombstone is where the source was compacted, which versions
// treat in different ways.
func TestLongRun_Versions(t *testing.T) {
	requests := map[string]restore.Request{
		"AsItWas": {}, "Bumped": {BumpRevision: 1_000_000, MarkCompacted: true},
	}
	for _, version := range testserver.Versions(t) {
		for name, request := range requests {
			for _, kind := range []string{"", "head"} {
				for _, size := range []int{1, 3} {
					t.Run(fmt.Sprintf("%s/%s%s/%d", version, name, kind, size), func(t *testing.T) {
						g := newGround(t, size)
						p := g.restore(snapshotOf(t, version, kind), request)
						etcd := testserver.StartRestored(t, version, g.members)
						g.want(g.check(p, confirm.Options{}, cluster.Config{}), confirm.Green, "data", "m1", ok, "as planned")
						for _, m := range etcd.Members {
							m.Kill()
							m.Restart(t)
						}
						etcd.WaitReady(t)
						green(t, g, p, etcd)
					})
				}
			}
		}
	}
}
