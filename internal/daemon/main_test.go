package daemon_test

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/etcd-backupd/backupd/internal/etcddb"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

func TestMain(m *testing.M) {
	if code, ok := etcddb.ChildMain(); ok {
		os.Exit(code)
	}
	goleak.VerifyTestMain(suite{m})
}

// suite ends the shared servers after the tests and before leaks are looked for.
type suite struct{ *testing.M }

func (s suite) Run() int {
	code := s.M.Run()
	shared.end()
	return code
}

// shared are the servers that tests use together. A test that kills, compacts or
// configures a server starts its own.
var shared lasting

// sharedEtcd returns a cluster of one member. Its revision moves on with each
// test that writes to it; every test has its own repository.
func sharedEtcd(t *testing.T) *testserver.Cluster { return shared.cluster(t, 1) }

// sharedTrio returns a cluster of three members.
func sharedTrio(t *testing.T) *testserver.Cluster { return shared.cluster(t, 3) }

// sharedS3 returns an empty bucket of a server that all tests share.
func sharedS3(t *testing.T) *testserver.S3 {
	t.Helper()
	shared.mu.Lock()
	defer shared.mu.Unlock()
	if !shared.s3 {
		shared.TB, shared.s3 = t, true
		testserver.StartS3(&shared) // so that it does not end with this test
	}
	return testserver.StartS3(t)
}

// lasting is a testing.TB that lives as long as the package's tests.
type lasting struct {
	testing.TB // the test that needs a server first; it fails where none starts

	mu       sync.Mutex
	clusters map[int]*testserver.Cluster // by size
	s3       bool
	cleanUps []func()
}

func (l *lasting) cluster(t *testing.T, size int) *testserver.Cluster {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.clusters[size] == nil {
		l.TB = t
		if l.clusters == nil {
			l.clusters = map[int]*testserver.Cluster{}
		}
		l.clusters[size] = testserver.StartCluster(l, testserver.Options{Size: size})
	}
	return l.clusters[size]
}

func (l *lasting) Cleanup(f func())         { l.cleanUps = append(l.cleanUps, f) }
func (l *lasting) Context() context.Context { return context.Background() }
func (l *lasting) Failed() bool             { return false }
func (l *lasting) Helper()                  {}

func (l *lasting) Errorf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "shared server: "+format+"\n", args...)
}

func (l *lasting) TempDir() string {
	dir, err := os.MkdirTemp("", "backupd-daemon-test-")
	if err != nil {
		l.Fatal(err)
	}
	l.Cleanup(func() { _ = os.RemoveAll(dir) }) // another run does not find it in its way
	return dir
}

func (l *lasting) end() {
	for i := len(l.cleanUps) - 1; i >= 0; i-- {
		l.cleanUps[i]()
	}
}

// await waits for a condition.
func await(t *testing.T, condition string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", condition)
		}
	}
}
