package duty

import (
	"context"
	"fmt"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/cluster"
	"github.com/etcd-backupd/backupd/internal/health"
	"github.com/etcd-backupd/backupd/internal/schedule"
)

// elsewhere returns why the run belongs to another sidecar, or "". turn is how many
// sidecars have missed their turn: see [cluster.Turn].
func (s *Subject) elsewhere(
	ctx context.Context, survey *cluster.Survey, why schedule.Reason, turn int,
) (string, error) {
	if s.LocalEndpoint == "" || why == schedule.Manual {
		return "", nil
	}
	id := cluster.Worker(survey, turn)
	if id == 0 {
		return "", nil // no member is preferred: every sidecar works rather than none
	}
	own, err := s.Etcd.Identify(ctx, s.LocalEndpoint)
	if err != nil {
		return "", backup.WithHint(fmt.Errorf("ask the member beside this daemon who it is: %w", err),
			"local-endpoint must be a client URL of the etcd member beside this daemon")
	}
	if id != own.MemberID {
		return fmt.Sprintf("this slot belongs to the daemon beside member %s", id), nil
	}
	if turn > 0 && id != cluster.Worker(survey, 0) {
		s.Log.Warn("this daemon takes over: nobody has taken a snapshot for too long", "missed turns", turn,
			"first in rank", cluster.Worker(survey, 0))
	}
	return "", nil
}

// turn returns how many sidecars have missed their turn, and since when the present
// turn goes on.
func turn(b *Backup, now time.Time) (missed int, since time.Time) {
	f := b.Known.Now()
	last := f.Confirmed
	if last.IsZero() {
		last = f.Since
	}
	missed, ago := cluster.Turn(now.Sub(last), b.Longest)
	return missed, now.Add(-ago)
}

// Late reports whether a backup should begin at once, and not in the next slot: a pause has
// ended, or a sidecar should look whose turn it is, for the one before has missed its turn, and
// this one has not looked since.
func Late(b *Backup) bool {
	f := b.Known.Now()
	if paused := f.Pauses.Now(b.Now()) != nil; paused || f.Pauses.Rested.After(f.Attempted) {
		return !paused
	}
	missed, since := turn(b, b.Now())
	return b.LocalEndpoint != "" && missed > 0 && b.Known.Now().Attempted.Before(since)
}

// Passing returns an error if an outcome may not pass for a success of a process that
// ends with it: the slot is another sidecar's, and this process has not read in the
// repository that the cluster is protected, or nobody has protected it for too long.
func Passing(b *Backup, o Outcome) error {
	if o.Result != Passed {
		return nil
	}
	f := b.Known.Now()
	if f.ReadErr != nil {
		return fmt.Errorf("%s, and the repository cannot be read: %w", o.Reason, b.explain(f.ReadErr))
	}
	if f.Overview == nil {
		return fmt.Errorf("%s, and there is no repository yet", o.Reason)
	}
	if f.Confirmed.IsZero() {
		return fmt.Errorf("%s, and there is no verified snapshot yet", o.Reason)
	}
	if h := b.overdue(&f, b.Now()); h.Level != health.OK {
		return fmt.Errorf("%s, and that one does not work: %s", o.Reason, h.Problem)
	}
	return nil
}
