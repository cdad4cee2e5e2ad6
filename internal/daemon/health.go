package daemon

import (
	"errors"
	"fmt"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/server"
	"github.com/etcd-backupd/backupd/internal/snapshot"
)

// health is a judgement of how a cluster is protected, with what to do.
type health struct {
	state   string
	problem string
	hint    string
}

// judge tells how the cluster is protected. Two slots may pass without a
// success: one is missed, the next may still be running.
func (g *guard) judge(now time.Time) health {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := &g.standing
	hint := g.daemon.opts.Hint
	overdue := now.Add(-g.patience(now))
	failing := func(problem string, err error) health {
		h := health{server.ClusterFailure, problem, ""}
		if err != nil {
			h.problem, h.hint = problem+": "+err.Error(), hint(err)
		}
		return h
	}
	var defect *snapshot.DefectError
	switch {
	case s.catalog.newest.Suspect:
		return health{server.ClusterFailure, fmt.Sprintf("the newest snapshot, %s, is suspect", s.catalog.newest.ID),
			"backupd show --cluster " + g.conf.Name + " " + string(s.catalog.newest.ID) + " tells why; older snapshots are kept meanwhile"}
	case s.catalog.damaged.ID != "":
		return health{server.ClusterFailure, fmt.Sprintf("the data of snapshot %s is not in the repository", s.catalog.damaged.ID),
			"find out who removed it; backupd rm --cluster " + g.conf.Name + " " + string(s.catalog.damaged.ID) + " removes what is left of it"}
	case errors.As(s.defect, &defect), errors.Is(s.defect, backup.ErrCorrupt):
		return failing("a stored snapshot is damaged", s.defect)
	case s.confirmed.IsZero() && g.since.Before(overdue):
		return failing("there is no verified snapshot", errors.Join(s.failed, s.readErr))
	case !s.confirmed.IsZero() && s.confirmed.Before(overdue) && g.since.Before(overdue):
		return failing(fmt.Sprintf("the last verified snapshot is %v old", now.Sub(s.confirmed).Round(time.Second)), errors.Join(s.failed, s.readErr))
	case s.failed != nil:
		return health{server.ClusterWarning, "the last backup failed: " + s.failed.Error(), hint(s.failed)}
	case s.readErr != nil:
		return health{server.ClusterWarning, "the repository cannot be read: " + s.readErr.Error(), hint(s.readErr)}
	case s.defect != nil:
		return health{server.ClusterWarning, "the last verification failed: " + s.defect.Error(), hint(s.defect)}
	case s.pruneError != nil:
		return health{server.ClusterWarning, "old snapshots cannot be removed: " + s.pruneError.Error(), hint(s.pruneError)}
	case s.read.IsZero():
		return health{server.ClusterWarning, "the repository was not read yet", ""}
	case s.confirmed.IsZero():
		return health{server.ClusterWarning, "there is no verified snapshot yet", ""}
	}
	return health{state: server.ClusterOK}
}

// patience is how old the last success may be.
func (g *guard) patience(now time.Time) time.Duration {
	return 2*g.line.Longest(now) + g.conf.Snapshot.Jitter
}

// status is how the cluster stands, for the API.
func (g *guard) status(now time.Time) server.Cluster {
	h := g.judge(now)
	g.mu.Lock()
	s := g.standing
	g.mu.Unlock()
	out := server.Cluster{
		Name: g.conf.Name, Labels: g.conf.Labels, Repository: g.conf.Repository, Schedule: g.line.String(),
		State: h.state, Problem: h.problem, Hint: h.hint,
		LastSuccess: s.confirmed.UTC(), LastAttempt: s.attempted.UTC(), NextRun: g.nextRun().UTC(),
		Running: g.daemon.board.running(kindBackup, g.conf.Name),
	}
	if s.newest != nil {
		out.Snapshot, out.Revision = string(s.newest.ID), int64(s.newest.Revision)
	}
	return out
}

// nextRun is when the next backup is due; zero while that is not known.
func (g *guard) nextRun() time.Time {
	for _, st := range g.daemon.scheduler.States() {
		if st.Name == g.jobName(kindBackup) {
			return st.Next
		}
	}
	return time.Time{}
}
