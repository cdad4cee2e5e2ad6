// Package openfiles divides the files and connections that a process may have open
// among its jobs. A process without any left can neither work nor say so.
package openfiles

import (
	"context"
	"fmt"
	"math"

	"golang.org/x/sync/semaphore"
	"golang.org/x/sys/unix"

	"github.com/etcd-backupd/backupd/internal/backup"
)

const (
	// kept is how many a daemon has beside its jobs: the standard streams, its listener
	// with some connections, watches, and looks at the repositories.
	kept = 24
	// perJob is how many a job has beside its connections to etcd: the spool, the child
	// process that inspects it, and the store.
	perJob = 16
)

// Limit returns how many files this process may open. Go has raised it as far as it may.
func Limit() uint64 {
	var limit unix.Rlimit
	_ = unix.Getrlimit(unix.RLIMIT_NOFILE, &limit) // it exists on every Linux
	return limit.Cur
}

// Need returns how many a daemon may have open at once, if so many jobs run that each
// talk to so many members.
func Need(jobs, members int) int { return kept + jobs*(perJob+members) }

// Budget is what the jobs of a process may have open together.
type Budget struct {
	limit uint64
	most  int64
	free  *semaphore.Weighted
}

// New returns the budget of a process that may open so many files.
func New(limit uint64) *Budget {
	most := max(1, int64(min(limit, math.MaxInt32))-kept)
	return &Budget{limit: limit, most: most, free: semaphore.NewWeighted(most)}
}

// Take waits until there is enough for a job that talks to so many members. The caller
// must call done after it. One job may always run, whatever it needs.
func (b *Budget) Take(ctx context.Context, members int) (done func(), err error) {
	need := min(int64(perJob+members), b.most)
	if b.free.Acquire(ctx, need) != nil {
		return nil, backup.WithHint(fmt.Errorf(
			"wait for other jobs to close files: this process may open %d: %w", b.limit, context.Cause(ctx)),
			"raise the limit (LimitNOFILE= of the unit, ulimit -n), or lower daemon.concurrency")
	}
	return func() { b.free.Release(need) }, nil
}
