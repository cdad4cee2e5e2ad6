package snapshot

import (
	"context"
	"log/slog"
	"time"

	"github.com/etcd-backupd/backupd/internal/repository/streams"
)

// streamTime is how long a stream may be open if nothing else bounds it.
const streamTime = 2 * time.Hour

// Announce says in the repository that a snapshot is being taken, so that no host
// defragments a member beside its stream. by names who takes it. A snapshot matters more:
// it is taken all the same if nobody can be told. The caller must call end after it.
func Announce(ctx context.Context, to Target, by string, log *slog.Logger) (end func()) {
	if to.Down != nil {
		return func() {}
	}
	until, bounded := ctx.Deadline()
	if !bounded {
		until = time.Now().Add(streamTime)
	}
	over, err := streams.Of(to.Repository().Store(), to.Name()).Announce(ctx, until, by)
	if err != nil {
		log.Warn("the snapshot stream is not announced: do not defragment a member now", "err", err)
		return func() {}
	}
	return func() {
		if err := over(); err != nil {
			log.Info("the announcement of the snapshot stream ends by itself", "at", until, "err", err)
		}
	}
}
