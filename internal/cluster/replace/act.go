package replace

import (
	"context"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/cluster"
)

// do does one step, or waits a moment for it. What has become of it the next look shows.
func (r *run) do(ctx context.Context, s *state, step Step) error {
	if s.note == nil && step != Remove {
		// Without it nobody would know, later, that the member votes because of this.
		if err := r.writeNote(s, 0); err != nil {
			return err
		}
	}
	switch step {
	case Remove:
		return r.remove(ctx, s)
	case Aside:
		return r.moveAside()
	case Add:
		return r.change(ctx, s, "add", rpctypes.ErrPeerURLExist, func(ctx context.Context, cl *clientv3.Client) error {
			_, err := cl.MemberAddAsLearner(ctx, s.wanted)
			return err
		})
	case Start:
		return r.start(ctx, s)
	case Promote:
		return r.promote(ctx, s)
	case Compare:
		return r.compare(ctx, s)
	}
	return fmt.Errorf("no step %q", step)
}

func (r *run) writeNote(s *state, replaced backup.MemberID) error {
	if err := r.o.before("note"); err != nil {
		return err
	}
	return r.folders.writeNote(note{
		ClusterID: s.clusterID, Member: r.o.Name, ReplacedID: replaced, PeerURLs: s.wanted, Begun: time.Now().UTC(),
	})
}

// timeToStop is for how many pauses a removal waits, if there is no data of the member: somebody may
// see that the folder is the wrong one.
const timeToStop = 5

func (r *run) remove(ctx context.Context, s *state) error {
	id := s.target.ID
	if beware := r.folders.missing(s); beware != "" && !r.warned {
		r.report.note("%s", beware)
		r.warned = true
		for range timeToStop { // then all is looked at again
			if err := r.sleep(ctx); err != nil {
				return err
			}
		}
		return nil
	}
	if err := r.writeNote(s, id); err != nil {
		return err
	}
	err := r.change(ctx, s, "remove", rpctypes.ErrMemberNotFound, func(ctx context.Context, cl *clientv3.Client) error {
		_, err := cl.MemberRemove(ctx, uint64(id))
		return err
	})
	if err == nil {
		r.report.ReplacedID, r.report.MemberID = id, 0
		r.judge.started, r.judge.doubtful = false, time.Time{}
	}
	return err
}

// change changes the membership. The error done says that an earlier request did it.
func (r *run) change(ctx context.Context, s *state, what string, done error,
	request func(context.Context, *clientv3.Client) error) error {
	if err := r.o.before(what); err != nil {
		return err
	}
	err := r.asker.voter(ctx, s, requestLimit, request)
	switch {
	case err == nil, errors.Is(err, done):
		return nil
	case errors.Is(err, cluster.ErrPermission):
		return backup.WithHint(err, "only a user with the role root may change the members: --user, or a client certificate "+
			"of such a user")
	}
	// An election, or a member that has just lost its connections: etcd says so, and means it
	// for a moment.
	return &unsettledError{fmt.Errorf("%s the member: %w", what, err)}
}

func (r *run) moveAside() error {
	places, err := r.folders.places()
	if err != nil {
		return err
	}
	for _, p := range places {
		aside, err := p.MoveAside(func(op, path string) error { return r.o.before(op) })
		if aside != "" {
			r.report.OldData = append(r.report.OldData, aside)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// start lets the member be started, once, and waits until it answers.
func (r *run) start(ctx context.Context, s *state) error {
	if !r.judge.started {
		if err := r.o.before("start"); err != nil {
			return err
		}
		places, err := r.folders.places()
		if err != nil {
			return err
		}
		for _, p := range places { // a kill may have left no folder for the old one
			if !p.Exists {
				if _, err := p.MoveAside(nil); err != nil {
					return err
				}
			}
		}
		if !s.held.used {
			if err := give(r.folders); err != nil {
				return err
			}
		}
		r.judge.started = true
		r.report.Settings = settings(r.o.Name, r.folders, s)
		if s.held.used {
			r.o.Log.Info("a server runs on the folder: waiting for its answer", "folder", r.folders.dataDir)
		} else if r.failed, err = r.o.Starter(ctx, r.report.Settings); err != nil {
			return err
		}
	}
	if err := checkStarted(r.o.Name, r.folders, s); err != nil {
		return err
	}
	if r.broken != nil && !s.held.used { // an earlier start, of a call that was killed, may go on
		return backup.WithHint(fmt.Errorf("start the member: %w", r.broken),
			"look into its log, repair the cause, and run the same command again: it goes on from here")
	}
	ended(r, s)
	hint := "start it as shown, and run the same command again: it goes on from here. If it runs, name its client URL " +
		"with --endpoints"
	if t := s.target; !t.Learner && s.note != nil {
		hint += fmt.Sprintf(". It votes since a replacement %s: to replace it afresh instead, remove %s, and run the same "+
			"command", s.note.age(), r.folders.notePath())
	}
	return r.await(ctx, s, fmt.Errorf("member %s: %w", nameOf(*s.target), errNotStarted), hint+r.folders.oldWAL())
}

// ended takes over how the command has ended that starts the member. One that has not failed may
// have started a service, or has started nothing.
func ended(r *run, s *state) {
	select {
	case r.broken = <-r.failed:
		r.failed, r.quiet = nil, r.broken == nil
	default:
		if r.quiet && !s.held.used {
			r.o.Log.Warn("the command that starts the member has ended without an error, and no server holds the folder: "+
				"waiting for one", "folder", r.folders.dataDir)
		}
		r.quiet = false
	}
}

// promote promotes a learner that has all that the cluster had when this began, and is not far
// behind it now. One that tells nothing, because nobody can log in at it, is judged by etcd.
func (r *run) promote(ctx context.Context, s *state) error {
	learner := s.seen[s.target.ID]
	if r.goal == 0 {
		r.goal = s.index
	}
	if learner.AppliedIndex > r.reached {
		r.reached, r.took = learner.AppliedIndex, time.Now()
	}
	const later = "it goes on to receive data as long as it runs: run the same command again"
	behind := int64(s.index) - int64(learner.AppliedIndex)
	if learner.Version != "" && (learner.AppliedIndex < r.goal || behind > cluster.MaxLag) {
		r.o.Log.Info("waiting for the member to catch up", "behind", behind)
		return r.await(ctx, s, fmt.Errorf("member %s is %d raft entries behind", nameOf(*s.target), behind), later)
	}
	err := r.change(ctx, s, "promote", rpctypes.ErrMemberNotLearner,
		func(ctx context.Context, cl *clientv3.Client) error {
			_, err := cl.MemberPromote(ctx, uint64(s.target.ID))
			return err
		})
	if errors.Is(err, rpctypes.ErrMemberLearnerNotReady) {
		return r.await(ctx, s, err, later)
	}
	return err
}
