// Package confirm asks a cluster that was restored whether it is the one that its plan
// describes: every member by itself, and not only the one that answers first.
package confirm

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/cluster"
	"github.com/etcd-backupd/backupd/internal/restore"
)

// State is what the findings come to.
type State string

// States, the best first. The worst of all findings counts.
const (
	Green State = "green"
	// Incomplete: something of the plan is not there, or could not be seen.
	Incomplete State = "incomplete"
	// OtherCluster: at an endpoint a member of another cluster than the plan's answers.
	OtherCluster State = "other-cluster"
	// Differs: a member of the plan's cluster holds other data than the plan's source.
	Differs State = "differs"
)

var states = []State{Green, Incomplete, OtherCluster, Differs}

// Options say how [Run] asks.
type Options struct {
	// NoWrite leaves the write out. It is then a warning.
	NoWrite bool
	// Wait is how long the cluster is asked again until it is green. Zero asks once.
	Wait time.Duration
	// Pause is the time between two rounds. Zero means 2 seconds.
	Pause time.Duration
	// Timeout bounds each request but HashKV. Zero means 5 seconds.
	Timeout time.Duration
	Log     *slog.Logger // nil discards
}

// Report is what was found, and when each phase of the recovery ended.
type Report struct {
	Source    string           `json:"restoredFrom"`
	ClusterID backup.MemberID  `json:"clusterID"` // the plan's
	State     State            `json:"state"`
	Failures  int              `json:"failures"`
	Warnings  int              `json:"warnings"`
	Findings  []backup.Finding `json:"findings"`
	Phases    []Phase          `json:"phases"`

	// settled says that asking again finds the same.
	settled bool
}

// Phase is one step of the recovery.
type Phase struct {
	Phase string    `json:"phase"`
	At    time.Time `json:"at"` // when it ended
}

// Sections of the findings, in order.
const (
	sectionMember  = "member"
	sectionCluster = "cluster"
	sectionData    = "data"
	sectionWrite   = "write"
)

// Run asks the members of the plan until all is as planned or the time is over. The members
// are asked at the endpoints, and those that are not found there at the client URLs that
// the others tell. What cannot change any more ends it at once. The error is that of ctx.
func Run(ctx context.Context, c *cluster.Cluster, plan *restore.Plan, o Options) (*Report, error) {
	if o.Pause <= 0 {
		o.Pause = 2 * time.Second
	}
	if o.Timeout <= 0 {
		o.Timeout = 5 * time.Second
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	began, told := time.Now(), ""
	var answered [2]time.Time // by the first member, by all
	for {
		r := &round{asker: asker{c, o.Timeout}, plan: plan, noWrite: o.NoWrite, Report: &Report{
			Source: plan.Source.Name, ClusterID: plan.ClusterID, State: Green, Findings: []backup.Finding{},
		}}
		r.run(ctx)
		if ctx.Err() != nil {
			return nil, fmt.Errorf("verify cluster %s: %w", plan.ClusterID, context.Cause(ctx))
		}
		now := time.Now()
		for i, enough := range []int{1, len(plan.Members)} {
			if answered[i].IsZero() && len(r.here) >= enough {
				answered[i] = now
			}
		}
		if r.State == Green || r.settled || now.Sub(began)+o.Pause > o.Wait {
			r.phases(plan, answered)
			return r.Report, nil
		}
		if why := r.firstFailure(); why != told {
			o.Log.Info("not as planned yet", "why", why)
			told = why
		}
		select {
		case <-ctx.Done():
		case <-time.After(o.Pause):
		}
	}
}

// phases tells when each step of the recovery ended, as far as that is known.
func (r *Report) phases(plan *restore.Plan, answered [2]time.Time) {
	for _, p := range []Phase{
		{"snapshot taken", plan.Source.Taken}, {"plan made", plan.CreatedAt}, {"first member answered", answered[0]},
		{"all members answered", answered[1]}, {"verified", time.Now()},
	} {
		if !p.At.IsZero() {
			r.Phases = append(r.Phases, Phase{p.Phase, p.At.UTC().Truncate(time.Second)})
		}
	}
}

func (r *Report) firstFailure() string {
	i := slices.IndexFunc(r.Findings, func(f backup.Finding) bool { return f.Level == backup.LevelFailure })
	if i < 0 {
		return ""
	}
	return r.Findings[i].Text
}

// round is one time that everything is asked.
type round struct {
	asker
	*Report
	plan    *restore.Plan
	noWrite bool
	// here are the members of the plan that answer, in its order.
	here []*answer
}

func (r *round) run(ctx context.Context) {
	seen := r.look(ctx)
	r.present(ctx, seen)
	r.compareVoters()
	r.compareLeaders()
	r.compareAlarms()
	r.compareAuth(ctx)
	r.compareData(ctx)
	r.compareLeases(ctx)
	r.write(ctx)
}

// name is that of a member in the plan, or its id.
func (r *round) name(id backup.MemberID) string {
	for _, m := range r.plan.Members {
		if m.ID == id {
			return m.Name
		}
	}
	return id.String()
}

func (r *Report) ok(section, subject, format string, args ...any) {
	r.add(backup.Finding{Section: section, Subject: subject, Level: backup.LevelOK, Text: fmt.Sprintf(format, args...)})
}

func (r *Report) warn(section, subject, hint, format string, args ...any) {
	r.Warnings++
	r.add(backup.Finding{Section: section, Subject: subject, Level: backup.LevelWarning,
		Text: fmt.Sprintf(format, args...), Hint: hint})
}

// fail adds a failure that means at least the given state.
func (r *Report) fail(s State, section, subject, hint, format string, args ...any) {
	r.Failures++
	if slices.Index(states, s) > slices.Index(states, r.State) {
		r.State = s
	}
	r.add(backup.Finding{Section: section, Subject: subject, Level: backup.LevelFailure,
		Text: fmt.Sprintf(format, args...), Hint: hint})
}

func (r *Report) add(f backup.Finding) { r.Findings = append(r.Findings, f) }
