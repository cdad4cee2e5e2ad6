package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// DefragOptions say which members [Cluster.Defragment] defragments.
type DefragOptions struct {
	// Threshold is the part of a member's database file that must be free, 0 to
	// 1. Members with less are skipped.
	Threshold float64
	// Wait is how long a member may take to be healthy and caught up again
	// afterwards. Zero means 5 minutes.
	Wait time.Duration
	// Log defaults to the one of the Cluster.
	Log *slog.Logger
}

// DefragReport lists the members in the order in which [Cluster.Defragment] came to
// them.
type DefragReport struct {
	Defragmented []DefragMember
	// Passed are the members below the threshold, and learners: etcd does not
	// let them be defragmented.
	Passed []DefragMember
}

// DefragMember is one member's database.
type DefragMember struct {
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
func (r DefragReport) LogValue() slog.Value {
	freed := int64(0)
	for _, m := range r.Defragmented {
		freed += m.Before - m.After
	}
	return slog.GroupValue(
		slog.Int("defragmented", len(r.Defragmented)), slog.Int("passed", len(r.Passed)), slog.Int64("freed", freed))
}

// Defragment defragments the members whose files have enough free pages: the
// followers, by id, and the leader last, because a member answers nothing
// while it rewrites its file. It does so one by one, and goes on only when the
// member is healthy again and has caught up.
//
// It returns a [*backup.RefusedError], and touches nothing, unless all voting
// members answer and are healthy, and no alarm is active. It stops at the first
// failure; the report lists the members until then. Only ctx bounds how long a
// member may take: a member goes on even if its client leaves.
func (c *Cluster) Defragment(ctx context.Context, o DefragOptions) (DefragReport, error) {
	if !(o.Threshold >= 0 && o.Threshold <= 1) {
		return DefragReport{}, fmt.Errorf("defragment: threshold %v: want 0 to 1", o.Threshold)
	}
	if o.Wait <= 0 {
		o.Wait = 5 * time.Minute
	}
	if o.Log == nil {
		o.Log = c.cfg.Log
	}
	d := &defrag{conns: c.conns, surveyor: c.surveyor, o: o, done: make(map[backup.MemberID]bool)}
	survey, err := d.survey(ctx)
	var unfit *unfitError
	if errors.As(err, &unfit) {
		refused := &backup.RefusedError{Reason: "defragment: " + err.Error()}
		return DefragReport{}, backup.WithHint(refused, "%s", unfit.hint)
	}
	if err != nil {
		return DefragReport{}, fmt.Errorf("defragment: %w", err)
	}
	err = d.run(ctx, survey)
	return d.report, err
}

// defrag is one call of Defragment.
type defrag struct {
	conns    *connections
	surveyor *surveyor
	o        DefragOptions
	done     map[backup.MemberID]bool // defragmented or skipped
	report   DefragReport
}

func (d *defrag) run(ctx context.Context, survey *Survey) error {
	for _, m := range survey.Members {
		if m.Learner {
			d.done[m.ID] = true
			d.report.Passed = append(d.report.Passed, DefragMember{ID: m.ID, Name: m.Name})
		}
	}
	for {
		next, ok := d.next(survey)
		if !ok {
			return nil
		}
		d.done[next.MemberID] = true
		m := DefragMember{
			ID: next.MemberID, Name: survey.Member(next.MemberID).Name, Endpoint: next.Endpoint, Leader: next.Leader,
			Before: next.DatabaseBytes, InUse: next.InUseBytes, After: next.DatabaseBytes,
		}
		free := next.DatabaseBytes - next.InUseBytes
		if free == 0 || float64(free) < d.o.Threshold*float64(next.DatabaseBytes) {
			d.o.Log.Info("member needs no defragmentation",
				"member", next.String(), "bytes", m.Before, "inUse", m.InUse)
			d.report.Passed = append(d.report.Passed, m)
			continue
		}
		var err error
		if survey, err = d.member(ctx, next, &m); err != nil {
			return fmt.Errorf("defragment member %s (%s): %w", m.Name, m.Endpoint, err)
		}
	}
}

// next returns the follower with the lowest id that is not done yet, or the leader
// if only that is left. It is called again after each member, so that a leader
// that was elected meanwhile comes last too.
func (d *defrag) next(s *Survey) (Candidate, bool) {
	left := slices.DeleteFunc(slices.Clone(s.Candidates), func(c Candidate) bool {
		isMember := slices.ContainsFunc(s.Members, func(m backup.Member) bool { return m.ID == c.MemberID })
		return d.done[c.MemberID] || !isMember
	})
	if len(left) == 0 {
		return Candidate{}, false
	}
	return slices.MinFunc(left, func(a, b Candidate) int {
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
func (d *defrag) member(ctx context.Context, c Candidate, m *DefragMember) (*Survey, error) {
	d.o.Log.Info("defragmenting member", "member", c.String(), "bytes", m.Before, "inUse", m.InUse)
	began := time.Now()
	err := d.conns.do(ctx, c.Endpoint, func(cl *clientv3.Client) error {
		_, err := pb.NewMaintenanceClient(cl.ActiveConnection()).Defragment(ctx, &pb.DefragmentRequest{})
		return explain(err)
	})
	m.Duration = time.Since(began)
	if err != nil {
		return nil, err
	}
	survey, err := d.settled(ctx)
	if survey != nil {
		for _, now := range survey.Candidates {
			if now.MemberID == c.MemberID {
				m.After = now.DatabaseBytes
			}
		}
	}
	d.report.Defragmented = append(d.report.Defragmented, *m)
	if err != nil {
		return nil, err
	}
	d.o.Log.Info("defragmented member",
		"member", c.String(), "bytes", m.After, "freed", m.Before-m.After, "took", m.Duration)
	return survey, nil
}

// settled waits until all members are healthy and none is behind. It returns the
// last survey, also together with an error, or nil if there was none.
func (d *defrag) settled(ctx context.Context) (*Survey, error) {
	limited, cancel := context.WithTimeout(ctx, d.o.Wait)
	defer cancel()
	var latest *Survey
	last := errors.New("no answer yet")
	for {
		survey, err := d.survey(limited)
		if survey != nil {
			latest = survey
		}
		switch {
		case err == nil:
			return survey, nil
		case ctx.Err() != nil:
			return latest, fmt.Errorf("wait until all members are healthy: %w", context.Cause(ctx))
		case limited.Err() != nil:
			return latest, fmt.Errorf("not all members are healthy after %v: %w", d.o.Wait, last)
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
func (d *defrag) survey(ctx context.Context) (*Survey, error) {
	s, err := d.surveyor.survey(ctx)
	var none *NoMemberError
	if errors.As(err, &none) {
		return nil, unfit("bring the members back first", "%v", err)
	}
	if err != nil {
		return nil, err
	}
	return s, s.fitToDefragment()
}

func (s *Survey) fitToDefragment() error {
	if s.MembersErr != nil {
		return unfit("check that the user may list the members",
			"the members of the cluster are not known: %v", s.MembersErr)
	}
	for _, a := range s.Alarms {
		return unfit("find the cause and disarm it: etcdctl alarm list, etcdctl alarm disarm",
			"alarm %s is active on member %s", a.Type, a.MemberID)
	}
	for _, m := range s.Members {
		if m.Learner {
			continue
		}
		i := slices.IndexFunc(s.Candidates, func(c Candidate) bool { return c.MemberID == m.ID })
		if i < 0 {
			return unfit("bring it back first, or name its endpoint with the others",
				"member %s (%s) does not answer at any endpoint%s", m.Name, m.ID, s.refusals())
		}
		if len(s.Candidates[i].Concerns) > 0 {
			return unfit("wait until it is healthy",
				"member %s is not healthy: %s", m.Name, strings.Join(s.Candidates[i].Concerns, "; "))
		}
	}
	if leaders := s.leaders(); len(leaders) != 1 {
		return unfit("wait until the members agree on a leader", "%d members lead: want one", len(leaders))
	}
	return nil
}

func (s *Survey) leaders() []Candidate {
	return slices.DeleteFunc(slices.Clone(s.Candidates), func(c Candidate) bool { return !c.Leader })
}

func (s *Survey) refusals() string {
	text := ""
	for _, r := range s.Refused {
		text += fmt.Sprintf("; %s: %v", r.Endpoint, r.Err)
	}
	return text
}
