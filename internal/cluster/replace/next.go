package replace

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/cluster"
)

// judge decides which step comes next.
type judge struct {
	o       *Options
	folders *folders
	report  *Report
	// started says that this call has let the new member be started.
	started bool
	// doubtful is since when the folder lacks the data of the new member.
	doubtful time.Time
}

// next says which step comes next, or why none may.
func (j *judge) next(ctx context.Context, s *state) (Step, error) {
	t := s.target
	switch {
	case t == nil && s.held.any():
		return Aside, j.mayChange(ctx, s)
	case t == nil:
		return Add, j.mayChange(ctx, s)
	case t.Learner:
		return j.joining(ctx, s)
	case t.Name == "":
		return "", backup.WithHint(&backup.RefusedError{Reason: fmt.Sprintf(
			"member %s was added as a voting member, and has never started", nameOf(*t))},
			"start it; or take it away: etcdctl member remove %s", t.ID)
	case s.note != nil && s.note.ReplacedID != t.ID:
		return j.joined(ctx, s)
	}
	return Remove, j.mayRemove(ctx, s)
}

// joining decides about a learner.
func (j *judge) joining(ctx context.Context, s *state) (Step, error) {
	t, h := s.target, s.held
	switch {
	case s.alive(t.ID):
		return Promote, nil
	case j.started, h.member == t.ID, !h.any() && t.Name == "":
		return Start, nil
	case h.used && h.member == 0:
		return Start, nil // it has just been started
	case h.member != 0 && t.Name == "":
		return Aside, j.mayChange(ctx, s)
	}
	// It has begun to receive data, which is gone: with nothing it must not come back under
	// its old id.
	return j.again(ctx, s)
}

// joined decides about a new member that votes. One that was compared with others, and has other
// data, is a dead member like any other when it is stopped.
func (j *judge) joined(ctx context.Context, s *state) (Step, error) {
	switch {
	case s.alive(s.target.ID):
		return Compare, nil
	case s.note.Differs != "" && !j.started:
		j.report.note("member %s has replaced another one already (%s), with other data than member %s: it is replaced again",
			nameOf(*s.target), s.note.age(), s.note.Differs)
		return Remove, j.mayRemove(ctx, s)
	case j.started, s.held.member == s.target.ID:
		return Start, nil
	}
	return j.again(ctx, s)
}

// again removes the new member, whose data is not in the folder. A server that is starting
// shows the same for a moment.
func (j *judge) again(ctx context.Context, s *state) (Step, error) {
	if j.doubtful.IsZero() {
		j.doubtful = time.Now()
	}
	if !j.o.DryRun && time.Since(j.doubtful) < 3*j.o.pause {
		return Remove, &unsettledError{fmt.Errorf("%s does not hold the data of member %s", j.folders, nameOf(*s.target))}
	}
	return Remove, j.mayRemove(ctx, s)
}

// mayRemove refuses to remove a member that is not dead, or that the others cannot spare now.
func (j *judge) mayRemove(ctx context.Context, s *state) error {
	if err := j.dead(ctx, s); err != nil {
		return err
	}
	if err := spare(s); err != nil {
		return err
	}
	return j.mayChange(ctx, s)
}

// spare refuses to remove a voting member without which the others have no quorum. etcd refuses it
// only if it checks reconfigurations, and only for members that it knows to be gone.
func spare(s *state) error {
	if s.target.Learner {
		return nil
	}
	others := s.others()
	var down []string
	for _, m := range others {
		if !s.alive(m.ID) {
			down = append(down, s.why(m))
		}
	}
	answer, quorum := len(others)-len(down), len(others)/2+1
	switch {
	case len(others) == 0:
		return backup.WithHint(&backup.RefusedError{Reason: fmt.Sprintf(
			"member %s is the only one that votes: without it there is no cluster", nameOf(*s.target))},
			"nothing can be copied from another member; with its data lost the cluster is restored: backupd restore --help")
	case answer < quorum:
		return s.refuse(backup.WithHint(&backup.RefusedError{Reason: fmt.Sprintf(
			"without member %s the cluster has no quorum: %d of the %d other voting members answer, and a quorum of them is %d "+
				"(%s)", nameOf(*s.target), answer, len(others), quorum, strings.Join(down, "; "))},
			"start one that does not answer first, or name its client URL with --endpoints if it runs"))
	}
	return nil
}

// dead refuses a member that answers, itself or at its peer URL.
func (j *judge) dead(ctx context.Context, s *state) error {
	if j.o.AllowRunning {
		return nil
	}
	t := s.target
	if c, ok := s.seen[t.ID]; ok {
		return backup.WithHint(&backup.RefusedError{Reason: fmt.Sprintf(
			"member %s is not dead: it answers at %s%s", nameOf(*t), c.Endpoint, s.fine(c)), Override: "--allow-running"},
			"is --name right? To replace it all the same, stop its etcd first; --allow-running also removes one that runs, "+
				"which then ends itself")
	}
	for _, raw := range t.PeerURLs {
		if u, err := url.Parse(raw); err == nil && u.Host != "" && listens(ctx, u.Host) {
			return backup.WithHint(&backup.RefusedError{Reason: fmt.Sprintf(
				"member %s may not be dead: something listens on its peer URL %s", nameOf(*t), raw),
				Override: "--allow-running"},
				"stop its etcd first; --allow-running replaces the member all the same, if that is another program")
		}
	}
	return nil
}

// fine says that nothing has to be done about a member that answers, such as one that was
// replaced a moment ago; it is empty if something may have to be.
func (s *state) fine(c cluster.Candidate) string {
	alarmed := slices.ContainsFunc(s.alarms, func(a backup.Alarm) bool { return a.MemberID == c.MemberID })
	behind := int64(s.index) - int64(c.AppliedIndex)
	if c.Learner || c.NoLeader || c.Version == "" || alarmed || behind > cluster.MaxLag {
		return ""
	}
	return ", votes, and is up to date. It is healthy, so there is nothing to do"
}

func listens(ctx context.Context, host string) bool {
	d := net.Dialer{Timeout: time.Second}
	conn, err := d.DialContext(ctx, "tcp", host)
	if err != nil {
		return false
	}
	_ = conn.Close()
	return true
}

// mayChange refuses a change while the others are not healthy, while something else is being
// changed, and if the folder must not be moved.
func (j *judge) mayChange(ctx context.Context, s *state) error {
	if err := j.alone(s); err != nil {
		return err
	}
	if err := j.healthy(s); err != nil {
		return err
	}
	err := j.folders.check(ctx, s)
	if strays := j.folders.strays; err == nil && len(strays) > 0 {
		j.report.note("with the old data of %s there is what is not etcd's: %s", j.folders, strings.Join(strays, ", "))
	}
	return err
}

// alone refuses while another member is added.
func (j *judge) alone(s *state) error {
	for _, m := range s.members {
		if s.target != nil && m.ID == s.target.ID || !m.Learner && m.Name != "" {
			continue
		}
		what := "is a learner"
		if !m.Learner {
			what = "has not joined yet"
		}
		return backup.WithHint(&backup.RefusedError{Reason: fmt.Sprintf(
			"the membership is being changed: member %s %s", nameOf(m), what)},
			"let that end first, or take that member away: etcdctl member remove %s", m.ID)
	}
	return nil
}

// healthy refuses unless all other voting members answer and see one leader among them.
func (j *judge) healthy(s *state) error {
	var down []string
	leaders := 0
	for _, m := range s.others() {
		c, ok := s.seen[m.ID]
		switch {
		case !ok:
			down = append(down, s.why(m))
		case c.NoLeader:
			return &unsettledError{fmt.Errorf("member %s sees no leader", nameOf(m))}
		case c.Leader:
			leaders++
		}
	}
	if len(down) > 0 && !j.o.AllowMoreDown {
		return s.refuse(backup.WithHint(&backup.RefusedError{Override: "--allow-more-down", Reason: fmt.Sprintf(
			"more than one member is down: besides %s, %s", j.o.Name, strings.Join(down, "; "))},
			"start the other one first, or name its client URL with --endpoints if it runs; --allow-more-down replaces "+
				"member %s now: a quorum answers without both, and no further member may fail meanwhile", j.o.Name))
	}
	if t := s.target; leaders == 0 && t != nil && s.seen[t.ID].Leader {
		leaders = 1 // it runs, and that is allowed
	}
	if leaders != 1 && len(down) == 0 {
		return &unsettledError{fmt.Errorf("%d members lead: want one", leaders)}
	}
	return j.sound(s)
}

// sound refuses if the new member would get data that is in doubt.
func (j *judge) sound(s *state) error {
	for _, a := range s.alarms {
		mine := s.target != nil && a.MemberID == s.target.ID
		switch {
		case a.Type == "CORRUPT" && !mine && s.has(a.MemberID):
			return backup.WithHint(&backup.RefusedError{Reason: fmt.Sprintf(
				"a CORRUPT alarm is active for member %s: the new member could get its data from that one", a.MemberID)},
				"replace that member first; etcdctl alarm list shows the alarms")
		case a.Type == "CORRUPT":
			j.report.note("a CORRUPT alarm of member %s is active, and no key can be read or written until it is disarmed: "+
				"etcdctl alarm disarm, when the member is replaced", a.MemberID)
		default:
			j.report.note("an alarm %s is active for member %s: etcdctl alarm list", a.Type, a.MemberID)
		}
	}
	return nil
}

func (s *state) has(id backup.MemberID) bool {
	for _, m := range s.members {
		if m.ID == id {
			return true
		}
	}
	return id == 0 // it is about no specific member
}

// errNotStarted is why a wait has ended.
var errNotStarted = errors.New("it does not answer")
