package duty

import (
	"context"
	"errors"
	"fmt"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/health"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/schedule"
)

// judged returns the outcome of a try that stored a snapshot, by the histories that
// the repository holds now: a snapshot of a history that nobody has accepted may not
// pass for a success.
func judged(ctx context.Context, b *Backup, m *backup.Manifest) Outcome {
	o := stored(m)
	known := b.Known.Now().Overview
	if known == nil {
		return o // the repository was empty, or could not be read
	}
	if t := known.Timelines.Find(m.Timeline); t != nil && t.Count == 1 && len(known.Timelines) > 1 {
		// It began a timeline, and what was accepted was not read while there was one only.
		now, err := b.Look(ctx, b.Policy)
		if err != nil {
			o.Result, o.Err = Failed, fmt.Errorf("snapshot %s is stored, but its history cannot be judged: %w", m.ID, err)
			return o
		}
		known = now
	}
	if err := inQuestion(b.Subject, known); err != nil {
		o.Err = errors.Join(o.Err, err)
		if o.Result == Succeeded || o.Result == Unconfirmed || o.Result == Incomplete {
			o.Result = Unaccepted
		}
	}
	return o
}

// inQuestion returns the error if it is not known which history of the cluster is the
// present one. It is permanent: another try would not change that.
func inQuestion(s *Subject, o *repository.Overview) error {
	_, err := o.Timelines.Present()
	var history *repository.HistoryError
	if !errors.As(err, &history) {
		return nil
	}
	s.Log.Error("history is in question", "err", err)
	return schedule.Permanent(backup.WithHint(err, "%s", health.HistoryHint(s.Address, s.Cluster, history)))
}
