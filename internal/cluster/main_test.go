package cluster_test

import (
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/etcd-backupd/backupd/internal/cluster"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// connect returns the cluster behind conf, with time-outs fit for a test.
func connect(t *testing.T, conf cluster.Config) *cluster.Cluster {
	t.Helper()
	if conf.RequestTimeout == 0 {
		conf.RequestTimeout = 20 * time.Second // a busy machine is no dead endpoint
	}
	conf.InsecureTransport = true
	c, err := cluster.New(conf)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}

func survey(t *testing.T, c *cluster.Cluster) *cluster.Survey {
	t.Helper()
	s, err := c.Survey(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// eventually polls until ok, and fails the test when that takes too long.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	limit := time.After(30 * time.Second)
	for !ok() {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("%s: not in 30 s", what)
		}
	}
}
