package cluster_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/etcd-backupd/backupd/internal/cluster"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// memberAt returns the member that answers at an endpoint.
func memberAt(t *testing.T, c *cluster.Cluster, endpoint string) cluster.Candidate {
	t.Helper()
	m, err := c.Identify(t.Context(), endpoint)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func survey(t *testing.T, c *cluster.Cluster) *cluster.Survey {
	t.Helper()
	s, err := c.Survey(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}
