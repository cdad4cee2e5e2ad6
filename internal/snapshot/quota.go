package snapshot

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/cluster"
	"github.com/etcd-backupd/backupd/internal/disk"
)

// While a stream is open etcd cannot reuse the pages that are freed meanwhile, so the
// file of a busy member grows. At its quota the alarm NOSPACE makes the whole cluster
// read-only.
const (
	// nearQuota is the part of its quota that a member's database may take.
	nearQuota = 0.95
	// freeEnough is the part of its quota that may be free pages in a database near its
	// quota: so many are reused, and the file does not grow at once.
	freeEnough = 0.1
	// defaultQuota is the quota of an etcd that does not tell it, as before 3.6, unless
	// its file is larger already.
	defaultQuota = 2 << 30
	// lookEvery is the time between two looks at the size. A member answers from memory.
	lookEvery = 200 * time.Millisecond
	// blindFor is how long a stream goes on while the size is not known.
	blindFor = 30 * time.Second
)

// quotaGuard keeps streams from bringing a member to its quota.
type quotaGuard struct {
	allow    bool // begin although a member is near its quota
	readOnly bool // an alarm NOSPACE is active: nothing can be made worse
	log      *slog.Logger
}

func newQuotaGuard(s *cluster.Survey, allow bool, log *slog.Logger) *quotaGuard {
	full := slices.ContainsFunc(s.Alarms, func(a backup.Alarm) bool { return a.Type == "NOSPACE" })
	if full {
		log.Warn("the cluster is read-only: the size of the database is not watched during the stream", "alarm", "NOSPACE")
	}
	return &quotaGuard{allow: allow, readOnly: full, log: log}
}

// mayBegin returns an error if a member is so near its quota that a stream should not
// begin.
func (g *quotaGuard) mayBegin(c cluster.Candidate) error {
	if g.readOnly || !near(c) {
		return nil
	}
	if g.allow {
		g.log.Warn("the member is near its quota", "endpoint", c.Endpoint, "bytes", c.DatabaseBytes, "quota", c.QuotaBytes)
		return nil
	}
	return backup.WithHint(&backup.RefusedError{Reason: fmt.Sprintf(
		"the database of %s takes %s of its quota of %s: it may grow while it is streamed, and at the quota "+
			"the cluster becomes read-only", c.Endpoint, disk.Size(c.DatabaseBytes), disk.Size(c.QuotaBytes))},
		"compact and defragment, or raise --quota-backend-bytes; to take one snapshot before that, give "+
			"'backupd backup' or 'backupd snapshot save' the flag --allow-near-quota")
}

// near reports whether a database is near a quota that is known, and has few free pages.
func near(c cluster.Candidate) bool {
	quota := float64(c.QuotaBytes)
	return quota > 0 && float64(c.DatabaseBytes) >= nearQuota*quota &&
		float64(c.InUseBytes) >= (nearQuota-freeEnough)*quota
}

// watch looks at the size of the member that sends the stream and ends the stream
// before it comes near its quota. The caller must call stop.
func (g *quotaGuard) watch(ctx context.Context, in *cluster.Stream, first cluster.Candidate) (stop func()) {
	if g.readOnly || quota(first) <= 0 {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() {
		if err := look(ctx, in, first); err != nil {
			in.End(err)
		}
	})
	return func() { cancel(); running.Wait() }
}

// look returns why the stream must end, or nil when ctx has ended.
func look(ctx context.Context, in *cluster.Stream, first cluster.Candidate) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	last, seen := first, time.Now()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		now, err := status(ctx, in)
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil && time.Since(seen) >= blindFor:
			return fmt.Errorf("stream snapshot from %s: the size of its database is not known for %v: %w",
				first.Endpoint, blindFor, err)
		case err != nil:
			continue
		case tooLarge(first, last, now):
			return grownError(first, now)
		}
		last, seen = now, time.Now()
	}
}

func status(ctx context.Context, in *cluster.Stream) (cluster.Candidate, error) {
	ctx, cancel := context.WithTimeout(ctx, blindFor)
	defer cancel()
	return in.Status(ctx)
}

// tooLarge reports whether a stream must end. The file has grown since the stream began,
// and is near its quota, or would be at it if it went on to grow as between the last two
// looks. If it was near its quota from the beginning, half of the rest is left.
func tooLarge(first, last, now cluster.Candidate) bool {
	quota := quota(first)
	if now.DatabaseBytes <= first.DatabaseBytes {
		return false
	}
	half := first.DatabaseBytes + (quota-first.DatabaseBytes)/2
	step := now.DatabaseBytes - last.DatabaseBytes
	return now.DatabaseBytes >= max(int64(nearQuota*float64(quota)), half) || now.DatabaseBytes+2*step >= quota
}

// quota returns the quota of a member, or 0 if it has none or nobody knows it.
func quota(c cluster.Candidate) int64 {
	if c.QuotaBytes == 0 && c.DatabaseBytes < defaultQuota {
		return defaultQuota
	}
	return max(c.QuotaBytes, 0) // a negative one is switched off
}

// grownError is the end of a stream that let a database grow. Another member would grow
// as well: the cause is not the member.
func grownError(first, now cluster.Candidate) error {
	told := "its quota"
	if first.QuotaBytes == 0 {
		told = "etcd's default quota (it does not tell its own)"
	}
	return &ownError{backup.WithHint(fmt.Errorf(
		"stream snapshot from %s: ended, because its database grew from %s to %s meanwhile, and at %s of %s the "+
			"cluster becomes read-only", first.Endpoint, disk.Size(first.DatabaseBytes), disk.Size(now.DatabaseBytes), told,
		disk.Size(quota(first))),
		"etcd cannot reuse pages while a stream is open: make the spool's disk or the link faster, "+
			"compact and defragment, or raise --quota-backend-bytes")}
}
