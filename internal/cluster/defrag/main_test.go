package defrag_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/etcd-backupd/backupd/internal/cluster"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func survey(t *testing.T, c *cluster.Cluster) *cluster.Survey {
	t.Helper()
	s, err := c.Survey(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}
