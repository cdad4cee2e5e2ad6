package defrag

import (
	"context"
	"fmt"
	"math"
	"sync"

	"golang.org/x/sync/semaphore"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// Streams keeps snapshot streams and defragmentations of one etcd cluster apart within a
// process, whatever names the cluster has and whatever repositories keep it. The zero
// value is ready, and nil keeps nothing apart. Its methods may be called concurrently.
type Streams struct {
	mu       sync.Mutex
	clusters map[backup.MemberID]*semaphore.Weighted
}

func (s *Streams) of(id backup.MemberID) *semaphore.Weighted {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.clusters == nil {
		s.clusters = map[backup.MemberID]*semaphore.Weighted{}
	}
	if s.clusters[id] == nil {
		s.clusters[id] = semaphore.NewWeighted(math.MaxInt64)
	}
	return s.clusters[id]
}

// Stream waits for the end of a defragmentation and returns what ends the stream.
func (s *Streams) Stream(ctx context.Context, id backup.MemberID) (end func(), err error) {
	if s == nil {
		return func() {}, nil
	}
	if s.of(id).Acquire(ctx, 1) != nil {
		return nil, fmt.Errorf("wait for the defragmentation of the cluster: %w", context.Cause(ctx))
	}
	return func() { s.of(id).Release(1) }, nil
}

// Alone returns false if a stream is open. Until end is called none begins.
func (s *Streams) Alone(id backup.MemberID) (end func(), ok bool) {
	if s == nil {
		return func() {}, true
	}
	if !s.of(id).TryAcquire(math.MaxInt64) {
		return nil, false
	}
	return func() { s.of(id).Release(math.MaxInt64) }, true
}
