package duty

import (
	"cmp"
	"errors"
	"fmt"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/health"
	"github.com/etcd-backupd/backupd/internal/repository"
)

// Health judges how the cluster is protected.
func (b *Backup) Health(now time.Time) health.Health {
	f := b.Known.Now()
	now = now.Round(0)
	if f.Unfit != nil {
		h := health.Problem(health.Failure, "a file that the configuration names cannot be used", f.Unfit)
		h.Hint = "put it right, readable for the user that backupd runs as; the next slot, or a reload, tries it again"
		return h
	}
	if f.Hung != nil {
		return health.Problem(health.Failure, "a member hangs", f.Hung)
	}
	var s repository.Summary
	if f.Overview != nil {
		s = f.Overview.Summary(now)
	}
	if f.Overview != nil {
		if h := inQuestionHealth(b.Subject, f.Overview); h.Level != health.OK {
			return h
		}
	}
	if h := health.Loss(f.Lost); h.Level != health.OK {
		return h
	}
	if h := health.Damage(b.Cluster, s); h.Level != health.OK {
		return h
	}
	if f.Overview == nil && errors.As(f.ReadErr, new(*repository.AbsentError)) {
		return health.Problem(health.Failure, "there is no such repository", f.ReadErr)
	}
	if errors.As(f.ReadErr, new(*repository.UnmarkedError)) {
		return health.Problem(health.Failure, "nobody knows which repository it is", f.ReadErr)
	}
	if h := b.overdue(&f, now); h.Level != health.OK {
		return h
	}
	if h := health.Unread(f.Started, f.Read, f.ReadBefore, f.ReadErr, now); h.Level != health.OK {
		return h
	}
	switch {
	case f.Failed != nil:
		return health.Problem(health.Warning, "the last backup failed", f.Failed)
	case f.ReadErr != nil:
		return health.Problem(health.Warning, "the repository cannot be read", f.ReadErr)
	case len(f.Astray) > 0:
		return health.Astray(f.Astray, f.RepositoryID)
	case s.Denied != nil:
		return health.Denied(s.Denied)
	case f.Pauses.Ignored != nil:
		return health.Unpaused(b.Address+" "+b.Cluster, f.Pauses.Ignored)
	case f.VerificationFailed(b.Rereading, now):
		return health.Problem(health.Warning, "the last verification failed", f.Verification)
	case f.unverified(b.Rereading, now):
		return health.NotVerified(f.LastVerified(b.Rereading, now), now)
	case f.PruneErr != nil:
		return health.Problem(health.Warning, "old snapshots cannot be removed", f.PruneErr)
	case s.Newest != nil && s.Newest.State() == backup.Unconfirmed && !f.Overview.Trusts(s.Newest.ID):
		return health.Unconfirmed(b.Cluster, f.Overview, s.Newest)
	case s.Future != nil:
		return health.Future(b.Cluster, s.Future)
	case unencrypted(b, f.Overview, now).Level != health.OK:
		return unencrypted(b, f.Overview, now)
	case f.Read.IsZero():
		return health.Problem(health.Warning, "the repository was not read yet", nil)
	case f.Confirmed.IsZero():
		return health.Problem(health.Warning, "there is no verified snapshot yet", nil)
	case b.Defragments && f.Defragmented != nil:
		return health.Problem(health.Warning, "the last defragmentation failed", f.Defragmented)
	}
	return health.Health{Level: health.OK}
}

// unencrypted judges whether new snapshots are in plain text where encrypted ones are.
func unencrypted(b *Backup, o *repository.Overview, now time.Time) health.Health {
	if !b.Plain {
		return health.Health{Level: health.OK}
	}
	return health.Unencrypted(b.Cluster, o, now)
}

// inQuestionHealth judges the histories of the cluster.
func inQuestionHealth(s *Subject, o *repository.Overview) health.Health {
	_, err := o.Timelines.Present()
	var history *repository.HistoryError
	if !errors.As(err, &history) {
		return health.Health{Level: health.OK}
	}
	hint := health.HistoryHint(s.Address, s.Cluster, history)
	return health.Health{Level: health.Failure, Problem: history.Error(), Hint: hint, Err: err}
}

// overdue judges whether backups are missing; in a pause none is. Two slots may pass without a
// success: the first is missed, and the run of the second may still go on.
func (b *Backup) overdue(f *Facts, now time.Time) health.Health {
	limit := now.Add(-2*b.Longest - b.Jitter)
	why := cmp.Or(f.Failed, f.ReadErr)
	switch {
	case f.Confirmed.IsZero() && f.Protected:
		return health.Problem(health.Failure, "the repository no longer holds a verified snapshot", why)
	case f.Pauses.Rests(now):
	case f.Confirmed.IsZero() && f.Since.Before(limit):
		return health.Problem(health.Failure, "there is no verified snapshot", why)
	case f.Confirmed.IsZero():
	case f.Confirmed.Before(limit) && f.Changed.Before(limit): // a new schedule gets the same time
		return health.Problem(health.Failure,
			fmt.Sprintf("the last verified snapshot is %v old", now.Sub(f.Confirmed).Round(time.Second)), why)
	}
	return health.Health{Level: health.OK}
}
