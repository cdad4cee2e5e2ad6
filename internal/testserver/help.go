package testserver

import (
	"os"
	"testing"
	"time"

	"github.com/etcd-backupd/backupd/internal/cluster"
	"github.com/etcd-backupd/backupd/internal/etcddb"
)

// RunChild begins each TestMain of a package whose tests inspect databases:
// package etcddb does that in a child process, which is the test binary itself.
// In such a child it does the work and ends the process.
func RunChild() {
	if code, ok := etcddb.ChildMain(); ok {
		os.Exit(code)
	}
}

// Eventually waits until ok returns true, and fails the test if it does not in
// half a minute. It may be called from any goroutine, so the test goes on; the
// result is the last one of ok.
func Eventually(t testing.TB, what string, ok func() bool) bool {
	t.Helper()
	return EventuallyIn(t, 30*time.Second, what, ok)
}

// EventuallyIn is [Eventually] with another limit.
func EventuallyIn(t testing.TB, limit time.Duration, what string, ok func() bool) bool {
	t.Helper()
	end := time.Now().Add(limit)
	for pause := time.Millisecond; !ok(); pause = min(2*pause, pollEvery) {
		if time.Now().After(end) {
			t.Errorf("%s: not in %s", what, limit)
			return false
		}
		<-time.After(pause)
	}
	return true
}

// Connect returns the cluster that conf describes, with time-outs fit for a
// busy machine unless conf has its own. It is closed when the test ends.
func Connect(t testing.TB, conf cluster.Config) *cluster.Cluster {
	t.Helper()
	if conf.RequestTimeout == 0 {
		conf.RequestTimeout = 20 * time.Second
	}
	if conf.StallTimeout == 0 {
		conf.StallTimeout = 20 * time.Second
	}
	conf.InsecureTransport = true
	c, err := cluster.New(conf)
	must(t, "connect", err)
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return c
}
