package testserver

import (
	"context"
	"fmt"
	"os"
	"sync"
	"testing"
)

// Shared are servers that live as long as the tests of a package, which share
// them. A test that kills, compacts or configures one starts its own. TestMain
// calls End when the tests have ended.
type Shared struct {
	mu       sync.Mutex // guards what follows
	clusters map[int]*Cluster
	s3       bool
	life     lasting
}

// Cluster returns a cluster with that many members, which starts with the first
// test that needs it. Its revision moves on with each test that writes to it.
func (s *Shared) Cluster(t testing.TB, size int) *Cluster {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.clusters[size] == nil {
		if s.clusters == nil {
			s.clusters = map[int]*Cluster{}
		}
		s.life.TB = t
		s.clusters[size] = StartCluster(&s.life, Options{Size: size})
	}
	return s.clusters[size]
}

// S3 returns an empty bucket of one server.
func (s *Shared) S3(t testing.TB) *S3 {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.s3 {
		s.life.TB, s.s3 = t, true
		StartS3(&s.life) // so that it does not end with this test
	}
	return StartS3(t)
}

// End ends the servers.
func (s *Shared) End() { s.life.end() }

// lasting is a testing.TB that does not end with the test inside it, which is the
// first that needs a server and fails where none starts.
type lasting struct {
	testing.TB
	cleanUps []func()
}

func (l *lasting) Cleanup(f func())         { l.cleanUps = append(l.cleanUps, f) }
func (l *lasting) Context() context.Context { return context.Background() }
func (l *lasting) Failed() bool             { return false }
func (l *lasting) Helper()                  {}

func (l *lasting) Errorf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "shared server: "+format+"\n", args...)
}

func (l *lasting) TempDir() string {
	dir, err := os.MkdirTemp("", "backupd-test-")
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
