package duty

import (
	"context"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/cluster"
)

// stale is the age at which a survey is no longer what a snapshot may begin with.
const stale = 10 * time.Second

// turn waits for the turn of the run, and shows that it waits.
func (r Run) turn(ctx context.Context) error {
	if r.Turn == nil {
		return nil
	}
	progress := r.Progress
	if progress == nil {
		progress = func(backup.Stage, int64, int64) {}
	}
	progress(backup.StageWait, 0, 0)
	defer progress(backup.StageWait, 0, 0)
	return r.Turn(ctx)
}

// turn waits for the turn of the run, and returns a survey that is fresh then: the
// wait may be long.
func (s *Subject) turn(ctx context.Context, run Run, survey *cluster.Survey) (*cluster.Survey, error) {
	asked := time.Now()
	if err := run.turn(ctx); err != nil {
		return nil, err
	}
	if time.Since(asked) < stale {
		return survey, nil
	}
	return s.Etcd.Survey(ctx)
}
