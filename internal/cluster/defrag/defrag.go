// Package defrag defragments the members of a live etcd cluster, one after the other, and keeps
// that apart from the snapshot streams of the process: see [Streams].
package defrag

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/cluster"
)

// Options say which members [Run] defragments.
type Options struct {
	// Threshold is the part of a member's database file that must be free, 0 to
	// 1. Members with less are skipped.
	Threshold float64
	// Wait is how long a member may take to be healthy and caught up again
	// afterwards. Zero means 5 minutes.
	Wait time.Duration
	// Patience is how long a member may answer nothing, besides the time that its size
	// takes, before Trouble is called. After six times as long Run gives up. Zero means 10
	// seconds.
	Patience time.Duration
	// Trouble is called as soon as a member hangs, while Run still waits for it; nil is
	// allowed. The error is a [*HungError].
	Trouble func(error)
	// Streams returns an error if somebody may be streaming a snapshot from the cluster; it
	// is asked before each member. Nil means that nobody is.
	Streams func(context.Context) error
	Log     *slog.Logger // nil discards
}

// Report lists the members in the order in which [Run] came to
// them.
type Report struct {
	Defragmented []Member
	// Passed are the members below the threshold, and learners: etcd does not
	// let them be defragmented.
	Passed []Member
}

// Member is one member's database.
type Member struct {
	ID       backup.MemberID
	Name     string
	Endpoint string // empty for a learner
	Leader   bool
	// Before and InUse are the size of the file and of its used part before the
	// defragmentation; After is the size of the file afterwards. All are zero for a
	// learner.
	Before, InUse, After int64
	Duration             time.Duration
}

// LogValue makes a report short in a log.
func (r Report) LogValue() slog.Value {
	freed := int64(0)
	for _, m := range r.Defragmented {
		freed += m.Before - m.After
	}
	return slog.GroupValue(
		slog.Int("defragmented", len(r.Defragmented)), slog.Int("passed", len(r.Passed)), slog.Int64("freed", freed))
}

// Run defragments the members of a cluster whose files have enough free pages: the
// followers, by id, and the leader last, because a member answers nothing while it
// rewrites its file. It does so one by one, and goes on only when the member is healthy
// again and has caught up.
//
// It returns a [*backup.RefusedError], and touches nothing, unless all voting members
// answer and are healthy, and no alarm is active. It stops at the first failure; the
// report lists the members until then. A member that answers
// nothing for much longer than its size takes is given up with a [*HungError]: it waits for
// the end of a snapshot stream, and goes on even if its client leaves.
func Run(ctx context.Context, c *cluster.Cluster, o Options) (Report, error) {
	if !(o.Threshold >= 0 && o.Threshold <= 1) {
		return Report{}, fmt.Errorf("defragment: threshold %v: want 0 to 1", o.Threshold)
	}
	if o.Wait <= 0 {
		o.Wait = 5 * time.Minute
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Patience <= 0 {
		o.Patience = 10 * time.Second
	}
	if o.Trouble == nil {
		o.Trouble = func(error) {}
	}
	if o.Streams == nil {
		o.Streams = func(context.Context) error { return nil }
	}
	r := &run{cluster: c, o: o, done: make(map[backup.MemberID]bool)}
	survey, err := r.survey(ctx)
	var unfit *unfitError
	if errors.As(err, &unfit) {
		refused := &backup.RefusedError{Reason: "defragment: " + err.Error()}
		return Report{}, backup.WithHint(refused, "%s", unfit.hint)
	}
	if err != nil {
		return Report{}, fmt.Errorf("defragment: %w", err)
	}
	err = r.all(ctx, survey)
	return r.report, err
}

// run is one call of Run.
type run struct {
	cluster *cluster.Cluster
	o       Options
	done    map[backup.MemberID]bool // defragmented or skipped
	report  Report
}

func (r *run) all(ctx context.Context, survey *cluster.Survey) error {
	for _, m := range survey.Members {
		if m.Learner {
			r.done[m.ID] = true
			r.report.Passed = append(r.report.Passed, Member{ID: m.ID, Name: m.Name})
		}
	}
	for {
		next, ok := r.next(survey)
		if !ok {
			return nil
		}
		r.done[next.MemberID] = true
		m := Member{
			ID: next.MemberID, Name: survey.Member(next.MemberID).Name, Endpoint: next.Endpoint, Leader: next.Leader,
			Before: next.DatabaseBytes, InUse: next.InUseBytes, After: next.DatabaseBytes,
		}
		free := next.DatabaseBytes - next.InUseBytes
		if free == 0 || float64(free) < r.o.Threshold*float64(next.DatabaseBytes) {
			r.o.Log.Info("member needs no defragmentation",
				"member", next.String(), "bytes", m.Before, "inUse", m.InUse)
			r.report.Passed = append(r.report.Passed, m)
			continue
		}
		var err error
		if survey, err = r.member(ctx, next, &m); err != nil {
			return fmt.Errorf("defragment member %s (%s): %w", m.Name, m.Endpoint, err)
		}
	}
}

// next returns the follower with the lowest id that is not done yet, or the leader
// if only that is left. It is called again after each member, so that a leader
// that was elected meanwhile comes last too.
func (r *run) next(s *cluster.Survey) (cluster.Candidate, bool) {
	left := slices.DeleteFunc(slices.Clone(s.Candidates), func(c cluster.Candidate) bool {
		isMember := slices.ContainsFunc(s.Members, func(m backup.Member) bool { return m.ID == c.MemberID })
		return r.done[c.MemberID] || !isMember
	})
	if len(left) == 0 {
		return cluster.Candidate{}, false
	}
	return slices.MinFunc(left, func(a, b cluster.Candidate) int {
		switch {
		case a.Leader == b.Leader:
			return cmp.Compare(a.MemberID, b.MemberID)
		case a.Leader:
			return 1
		}
		return -1
	}), true
}

// member defragments one member and returns when the whole cluster is healthy
// again.
func (r *run) member(ctx context.Context, c cluster.Candidate, m *Member) (*cluster.Survey, error) {
	if err := r.quick(ctx, c); err != nil {
		return nil, err
	}
	if err := r.o.Streams(ctx); err != nil {
		return nil, err
	}
	r.o.Log.Info("defragmenting member", "member", c.String(), "bytes", m.Before, "inUse", m.InUse)
	began := time.Now()
	err := r.rewrite(ctx, c, m)
	m.Duration = time.Since(began)
	if err != nil {
		return nil, err
	}
	survey, err := r.settled(ctx)
	if survey != nil {
		for _, now := range survey.Candidates {
			if now.MemberID == c.MemberID {
				m.After = now.DatabaseBytes
			}
		}
	}
	r.report.Defragmented = append(r.report.Defragmented, *m)
	if err != nil {
		return nil, err
	}
	r.o.Log.Info("defragmented member",
		"member", c.String(), "bytes", m.After, "freed", m.Before-m.After, "took", m.Duration)
	return survey, nil
}

// settled waits until all members are healthy and none is behind. It returns the
// last survey, also together with an error, or nil if there was none.
func (r *run) settled(ctx context.Context) (*cluster.Survey, error) {
	limited, cancel := context.WithTimeout(ctx, r.o.Wait)
	defer cancel()
	var latest *cluster.Survey
	last := errors.New("no answer yet")
	for {
		survey, err := r.survey(limited)
		if survey != nil {
			latest = survey
		}
		switch {
		case err == nil:
			return survey, nil
		case ctx.Err() != nil:
			return latest, fmt.Errorf("wait until all members are healthy: %w", context.Cause(ctx))
		case limited.Err() != nil:
			return latest, fmt.Errorf("not all members are healthy after %v: %w", r.o.Wait, last)
		}
		last = err
		select {
		case <-limited.Done():
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// unfitError says why a cluster must not be defragmented now.
type unfitError struct{ reason, hint string }

func (e *unfitError) Error() string { return e.reason }

func unfit(hint, format string, args ...any) error {
	return &unfitError{fmt.Sprintf(format, args...), hint}
}

// survey is a survey of a cluster that can do without one member for a while. It
// is an error if the cluster cannot.
func (r *run) survey(ctx context.Context) (*cluster.Survey, error) {
	s, err := r.cluster.Survey(ctx)
	var none *cluster.NoMemberError
	if errors.As(err, &none) {
		return nil, unfit("bring the members back first", "%v", err)
	}
	if err != nil {
		return nil, err
	}
	return s, fit(s)
}

func fit(s *cluster.Survey) error {
	if s.MembersErr != nil {
		hint := "check that the user may list the members"
		var h *backup.HintError
		if errors.As(s.MembersErr, &h) {
			hint = h.Configured()
		}
		return unfit(hint, "the members of the cluster are not known: %v", s.MembersErr)
	}
	for _, a := range s.Alarms {
		return unfit("find the cause and disarm it: etcdctl alarm list, etcdctl alarm disarm",
			"alarm %s is active on member %s", a.Type, a.MemberID)
	}
	for _, m := range s.Members {
		if m.Learner {
			continue
		}
		i := slices.IndexFunc(s.Candidates, func(c cluster.Candidate) bool { return c.MemberID == m.ID })
		if i < 0 {
			return unfit("bring it back first, or name its endpoint with the others",
				"member %s (%s) does not answer at any endpoint%s", m.Name, m.ID, refusals(s))
		}
		if len(s.Candidates[i].Concerns) > 0 {
			return unfit("wait until it is healthy",
				"member %s is not healthy: %s", m.Name, strings.Join(s.Candidates[i].Concerns, "; "))
		}
	}
	if leaders := leaders(s); len(leaders) != 1 {
		return unfit("wait until the members agree on a leader", "%d members lead: want one", len(leaders))
	}
	return nil
}

func leaders(s *cluster.Survey) []cluster.Candidate {
	return slices.DeleteFunc(slices.Clone(s.Candidates), func(c cluster.Candidate) bool { return !c.Leader })
}

func refusals(s *cluster.Survey) string {
	text := ""
	for _, r := range s.Refused {
		text += fmt.Sprintf("; %s: %v", r.Endpoint, r.Err)
	}
	return text
}
