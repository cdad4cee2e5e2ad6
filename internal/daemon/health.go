package daemon

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/schedule"
	"github.com/etcd-backupd/backupd/internal/server"
	"github.com/etcd-backupd/backupd/internal/snapshot"
)

// health is a judgement of how a cluster is protected, with what to do.
type health struct {
	state   string
	problem string
	hint    string
}

// judge tells how the cluster is protected.
func (g *guard) judge(now time.Time) health {
	s := g.known.now()
	if h := g.damage(&s); h.state != "" {
		return h
	}
	if h := g.overdue(&s, now.Round(0)); h.state != "" {
		return h
	}
	warning := func(problem string, err error) health { return g.problem(server.ClusterWarning, problem, err) }
	switch {
	case s.failed != nil:
		return warning("the last backup failed", s.failed)
	case s.readErr != nil:
		return warning("the repository cannot be read", s.readErr)
	case s.verification != nil && !errors.Is(s.verification, backup.ErrCorrupt):
		return warning("the last verification failed", s.verification)
	case s.pruneError != nil:
		return warning("old snapshots cannot be removed", s.pruneError)
	case s.catalog.future.ID != "":
		return health{server.ClusterWarning, fmt.Sprintf("snapshot %s lies in the future: a clock is wrong, or was", s.catalog.future.ID),
			"set the clocks right; " + g.remove(s.catalog.future)}
	case s.read.IsZero():
		return warning("the repository was not read yet", nil)
	case s.confirmed.IsZero():
		return warning("there is no verified snapshot yet", nil)
	}
	return health{state: server.ClusterOK}
}

// damage tells what is wrong with what is stored.
func (g *guard) damage(s *standing) health {
	c := &s.catalog
	switch {
	case c.newest.Suspect:
		return health{server.ClusterFailure, fmt.Sprintf("the newest snapshot, %s, is suspect", c.newest.ID),
			"backupd show --cluster " + g.conf.Name + " " + string(c.newest.ID) + " tells why; older snapshots are kept meanwhile"}
	case c.missing.ID != "":
		return health{server.ClusterFailure, fmt.Sprintf("the data of snapshot %s is not in the repository", c.missing.ID),
			"find out who removed it; " + g.remove(c.missing)}
	case c.clash.ID != "":
		return health{server.ClusterFailure, fmt.Sprintf("another manifest names the data of snapshot %s", c.clash.ID),
			"find out who copied or renamed objects, and remove the wrong manifest by hand"}
	case len(s.defects) > 0:
		id := slices.Max(slices.Collect(maps.Keys(s.defects)))
		h := g.problem(server.ClusterFailure, fmt.Sprintf("the stored snapshot %s is damaged", id), s.defects[id])
		h.hint = cmp.Or(h.hint, g.remove(snapshot.Entry{ID: id})+"; ask the store why its bytes changed")
		return h
	}
	return health{}
}

// overdue tells whether backups fail to come. Two slots may pass without a
// success: one is missed, the next may still be running.
func (g *guard) overdue(s *standing, now time.Time) health {
	limit := now.Add(-2*g.longest - g.conf.Snapshot.Jitter)
	why := cmp.Or(s.failed, s.readErr)
	switch {
	case s.confirmed.IsZero() && s.protected:
		return g.problem(server.ClusterFailure, "the repository holds no good snapshot any more", why)
	case s.confirmed.IsZero() && s.since.Before(limit):
		return g.problem(server.ClusterFailure, "there is no verified snapshot", why)
	case s.confirmed.IsZero():
		return health{}
	case s.confirmed.Before(limit) && s.changed.Before(limit): // a new schedule has yet to begin
		return g.problem(server.ClusterFailure, fmt.Sprintf("the last verified snapshot is %v old", now.Sub(s.confirmed).Round(time.Second)), why)
	}
	return health{}
}

// problem puts an error, if there is one, behind what is wrong.
func (g *guard) problem(state, problem string, err error) health {
	if err == nil {
		return health{state, problem, ""}
	}
	// One line, for tables.
	return health{state, problem + ": " + strings.ReplaceAll(err.Error(), "\n", "; "), g.daemon.opts.Hint(err)}
}

func (g *guard) remove(e snapshot.Entry) string {
	return "backupd rm --cluster " + g.conf.Name + " " + string(e.ID) + " removes what is left of it"
}

// status is how the cluster stands, for the API.
func (g *guard) status(now time.Time, plan map[string]schedule.State) server.Cluster {
	h, s := g.judge(now), g.known.now()
	out := server.Cluster{
		Name: g.conf.Name, Labels: g.conf.Labels, Repository: g.conf.Repository, Schedule: g.line.String(),
		State: h.state, Problem: h.problem, Hint: h.hint,
		LastSuccess: s.confirmed.UTC(), LastAttempt: s.attempted.UTC(), NextRun: plan[jobName(kindBackup, g.conf.Name)].Next.UTC(),
		Running: g.daemon.board.running(kindBackup, g.conf.Name),
	}
	if s.newest != nil {
		out.Snapshot, out.Revision = string(s.newest.ID), int64(s.newest.Revision)
	}
	return out
}

// plan is how all jobs stand, by name.
func (d *Daemon) plan() map[string]schedule.State {
	out := map[string]schedule.State{}
	for _, st := range d.scheduler.States() {
		out[st.Name] = st
	}
	return out
}
