package duty

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/repository/identity"
	"github.com/etcd-backupd/backupd/internal/repository/pause"
	"github.com/etcd-backupd/backupd/internal/repository/prune"
	"github.com/etcd-backupd/backupd/internal/retention"
	"github.com/etcd-backupd/backupd/internal/spool"
)

const (
	// reachTime bounds the wait for a repository to answer at all, or for a small object
	// to be written. The client of a store that is down would try for minutes.
	reachTime = 20 * time.Second
	// lookTime bounds one look at a repository that has answered.
	lookTime = 5 * time.Minute
)

// Look reads the repository of the cluster into an overview, and the pauses: four
// listings and a few small objects. It also notes its error in the knowledge. If there is no
// repository yet and a backup may make it, it returns neither an overview nor an error.
func (s *Subject) Look(ctx context.Context, p retention.Policy) (*repository.Overview, error) {
	s.Known.looking.Lock()
	defer s.Known.looking.Unlock()
	s.learn()
	before := s.Known.begin()
	repo, err := s.open(ctx, before.RepositoryID)
	if s.MayCreate && errors.Is(err, fs.ErrNotExist) {
		s.Known.change(func(f *Facts) { f.Read, f.ReadErr = s.Now(), nil })
		resting(s, pause.State{})
		return nil, nil
	}
	var o *repository.Overview
	if err == nil {
		// More by those that only this process does not trust.
		vouch := prune.Vouch(p) + s.Known.unrecordedDefects()
		o, err = look(ctx, repo.Cluster(s.Cluster).Lenient(s.Lenient), vouch, before.Overview, s.Now())
	}
	if err == nil && before.Overview != nil && len(o.Items) < len(before.Overview.Items) {
		// A folder that is unmounted during the look lists nothing more, without
		// an error.
		_, err = s.open(ctx, repo.ID())
	}
	var lost []repository.Item
	if err == nil {
		lost, err = s.lost(ctx, repo.Cluster(s.Cluster), before.Overview, o)
	}
	var pauses pause.State
	if err == nil {
		pauses, err = pause.Read(ctx, repo.Cluster(s.Cluster), s.Now())
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx) // the error says nothing about the repository
	}
	if err != nil {
		s.Known.change(func(f *Facts) { f.ReadErr = err })
		return nil, err
	}
	s.Known.missed(lost)
	resting(s, pauses)
	return s.Known.saw(repo.ID(), o, s.Now()), nil
}

// lost returns the snapshots that are gone since the last look, and that backupd did not
// remove.
func (s *Subject) lost(
	ctx context.Context, in *repository.Cluster, before, now *repository.Overview,
) ([]repository.Item, error) {
	gone := prune.Lost(before, now)
	if len(gone) == 0 {
		return nil, nil
	}
	ctx, cancel := context.WithTimeoutCause(ctx, lookTime, fmt.Errorf("no end within %v", lookTime))
	defer cancel()
	lost, err := prune.ConfirmLost(ctx, in, gone)
	for _, i := range lost {
		s.Log.Error("a snapshot is gone, and backupd did not remove it", "cluster", s.Cluster, "snapshot", i.ID)
	}
	return lost, because(ctx, err)
}

func look(
	ctx context.Context, c *repository.Cluster, vouch int, before *repository.Overview, now time.Time,
) (*repository.Overview, error) {
	ctx, cancel := context.WithTimeoutCause(ctx, lookTime, fmt.Errorf("no end within %v", lookTime))
	defer cancel()
	o, err := c.Look(ctx, vouch, before, now)
	return o, because(ctx, err)
}

// ReachWithin returns the [Subject.Reach] of jobs that end after timeout: a half of it,
// so that a database can still be received when the repository has not answered.
func ReachWithin(timeout time.Duration) time.Duration {
	if timeout <= 0 {
		return reachTime
	}
	return min(reachTime, timeout/2)
}

// reaching returns a context in which the repository must answer.
func (s *Subject) reaching(ctx context.Context) (context.Context, context.CancelFunc) {
	d := cmp.Or(s.Reach, reachTime)
	return context.WithTimeoutCause(ctx, d, fmt.Errorf("no answer within %v", d))
}

// because puts the reason why a context has ended before an error that it may have
// caused, unless the error says so itself.
func because(ctx context.Context, err error) error {
	if err != nil && ctx.Err() != nil && !errors.Is(err, context.Cause(ctx)) {
		err = fmt.Errorf("%w: %w", context.Cause(ctx), err)
	}
	return err
}

// open opens the repository. known is the id that it had before: see
// [repository.OpenToWrite].
func (s *Subject) open(ctx context.Context, known string) (*repository.Repository, error) {
	ctx, cancel := s.reaching(ctx)
	defer cancel()
	repo, err := repository.OpenToWrite(ctx, s.Store, known)
	if err == nil && repo.Made() {
		s.Log.Error("the marker of the repository was gone and was put back: find out what has removed it, "+
			"for example a life-cycle rule of the bucket", "id", known, "repository flags", s.Address)
	}
	return repo, because(ctx, s.explain(err))
}

// explain adds to an error what to do if the repository is not at its address, or has no
// marker.
func (s *Subject) explain(err error) error {
	hint := identity.Hint(err, s.Address, "repository-id")
	if hint == "" || errors.As(err, new(*backup.HintError)) {
		return err
	}
	if own := s.Waiting(); len(own) > 0 {
		hint += ". " + spool.MoveHint(own)
	}
	return backup.WithHint(err, "%s", hint)
}

// Open opens the repository and returns the part of the cluster.
func (s *Subject) Open(ctx context.Context) (*repository.Cluster, error) {
	s.learn()
	repo, err := s.open(ctx, s.Known.Now().RepositoryID)
	if err != nil {
		return nil, err
	}
	return repo.Cluster(s.Cluster).Lenient(s.Lenient), nil
}
