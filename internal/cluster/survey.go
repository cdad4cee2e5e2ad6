package cluster

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"sort"
	"strconv"
	"strings"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/cluster/endpoint"
	"github.com/etcd-backupd/backupd/internal/secret"
)

// MaxLag is how many raft entries a member may be behind the newest before it
// counts as lagging: less than a second of a busy cluster.
const MaxLag = 1000

// Survey is the status of all endpoints at one moment.
type Survey struct {
	// Began is when the first endpoint was asked.
	Began     time.Time
	ClusterID backup.MemberID
	// Members is the cluster's own list of its members, from the best member. It
	// is empty if no member gave one; MembersErr then says why.
	Members    []backup.Member
	MembersErr error
	Alarms     []backup.Alarm
	// HighWater is the newest revision any endpoint serves, Index and Term are the
	// newest raft applied index and term.
	HighWater   backup.Revision
	Index, Term uint64
	// Candidates can serve a snapshot, the best first.
	Candidates []Candidate
	// Refused are the endpoints that cannot, each with the reason.
	Refused []Refusal
}

// Position returns how far the cluster has come.
func (s *Survey) Position() backup.Position {
	return backup.Position{ClusterID: s.ClusterID, Revision: s.HighWater, Index: s.Index, Term: s.Term}
}

// Candidate is one member that can serve a snapshot.
type Candidate struct {
	Endpoint      string
	MemberID      backup.MemberID
	Version       string
	Revision      backup.Revision
	RaftTerm      uint64
	AppliedIndex  uint64
	DatabaseBytes int64 // of the file
	InUseBytes    int64 // of them; the rest is free pages
	QuotaBytes    int64 // of the file; 0 if the member does not report it, as before etcd 3.6
	Leader        bool
	Learner       bool
	NoLeader      bool
	// Proxy says that not one member answers at the endpoint, but something that passes
	// requests on to any of them: see [ProxyError]. MemberID and what follows are then of
	// one that happened to answer.
	Proxy bool
	// Concerns are the reasons to prefer other members, the worst first. A healthy
	// voting member has none.
	Concerns []string
	rank     int
}

// String describes the candidate in a few words.
func (c Candidate) String() string {
	role := "follower"
	if c.Learner {
		role = "learner"
	} else if c.Leader {
		role = "leader"
	}
	s := fmt.Sprintf("%s (member %s, %s, etcd %s, revision %d", c.Endpoint, c.MemberID, role, c.Version, c.Revision)
	if len(c.Concerns) > 0 {
		s += "; " + strings.Join(c.Concerns, "; ")
	}
	return s + ")"
}

// Member returns a member from the list of members, or one that has only the id.
func (s *Survey) Member(id backup.MemberID) backup.Member {
	for _, m := range s.Members {
		if m.ID == id {
			return m
		}
	}
	return backup.Member{ID: id}
}

// Unreachable reports whether the endpoint was asked and did not answer in the time
// that a request may take. Its scheme does not matter: members advertise URLs,
// people type host:port.
func (s *Survey) Unreachable(address string) bool {
	return slices.ContainsFunc(s.Refused, func(r Refusal) bool {
		return r.Err != errLearner && r.Err != errLate && endpoint.Same(r.Endpoint, address)
	})
}

// Late returns the endpoints that the survey did not wait for. Their members may be
// healthy and slow.
func (s *Survey) Late() []string {
	var out []string
	for _, r := range s.Refused {
		if r.Err == errLate {
			out = append(out, r.Endpoint)
		}
	}
	return out
}

// Corrupt returns the members for which a CORRUPT alarm is active.
func (s *Survey) Corrupt() []backup.MemberID { return backup.CorruptMembers(s.Alarms) }

// Endpoint returns the endpoint at which a member itself answered, or "".
func (s *Survey) Endpoint(id backup.MemberID) string {
	for _, c := range s.Candidates {
		if c.MemberID == id && !c.Proxy {
			return c.Endpoint
		}
	}
	return ""
}

type answer struct {
	endpoint string
	status   *pb.StatusResponse
	err      error

	// The member's own list of members, or why there is none.
	members    []backup.Member
	membersErr error
}

// Survey asks every endpoint for its status and ranks those that can serve a
// snapshot. It returns a [*NoMemberError] if none can. Endpoints of different
// clusters are an error: a snapshot must not depend on which one answers first.
func (c *Cluster) Survey(ctx context.Context) (*Survey, error) {
	if err := c.discover(); err != nil {
		return nil, err
	}
	return c.surveyor.survey(ctx, c.Endpoints())
}

// surveyor asks the members about themselves.
type surveyor struct {
	conns   *connections
	timeout time.Duration // of one request
}

func (c *surveyor) survey(ctx context.Context, endpoints []string) (*Survey, error) {
	s := &Survey{Began: time.Now().UTC()}
	answers := c.askAll(ctx, endpoints)
	if ctx.Err() != nil {
		return nil, fmt.Errorf("ask members for their status: %w", context.Cause(ctx))
	}
	for _, a := range answers {
		if a.err != nil {
			s.Refused = append(s.Refused, Refusal{a.endpoint, a.err})
			continue
		}
		id := backup.MemberID(a.status.Header.GetClusterId())
		if s.ClusterID != 0 && id != s.ClusterID {
			return nil, fmt.Errorf("the endpoints belong to different clusters: %s is in cluster %s, another in %s",
				a.endpoint, id, s.ClusterID)
		}
		s.ClusterID = id
		s.AddAlarms(a.status.Errors)
		s.Index, s.Term = max(s.Index, a.status.RaftAppliedIndex), max(s.Term, a.status.RaftTerm)
		s.HighWater = max(s.HighWater, backup.Revision(a.status.Header.GetRevision()))
	}
	if s.ClusterID == 0 {
		return nil, &NoMemberError{s.Refused}
	}
	for _, a := range answers {
		if a.err == nil {
			s.add(newCandidate(a))
		}
	}
	s.rank(s.Index)
	if len(s.Candidates) == 0 {
		return nil, &NoMemberError{s.Refused}
	}
	s.membership(answers)
	return s, nil
}

// add adds a candidate, unless the member is there already. What it says itself counts
// more than what a proxy passed on.
func (s *Survey) add(c Candidate) {
	i := slices.IndexFunc(s.Candidates, func(known Candidate) bool { return known.MemberID == c.MemberID })
	switch {
	case i < 0:
		s.Candidates = append(s.Candidates, c)
	case s.Candidates[i].Proxy && !c.Proxy:
		s.Candidates[i] = c
	}
}

// grace is how long Survey waits for slower endpoints after a healthy voting
// member has answered: a dead one must not hold up every backup.
const grace = 1500 * time.Millisecond

var errLate = fmt.Errorf("no answer within %v of another member's", grace)

// askAll asks each endpoint for its status, and those that give it for their members.
func (c *surveyor) askAll(ctx context.Context, endpoints []string) []answer {
	answers := make([]answer, len(endpoints))
	hurried(ctx, len(answers), func(ctx context.Context, i int) bool {
		answers[i] = c.ask(ctx, endpoints[i])
		return answers[i].healthy()
	})
	hurried(ctx, len(answers), func(ctx context.Context, i int) bool {
		if answers[i].err != nil {
			return false
		}
		answers[i].members, answers[i].membersErr = c.membersBy(ctx, &answers[i])
		return answers[i].membersErr == nil
	})
	return answers
}

// hurried calls ask with each number below n, all at once. When one call returns true the
// others have the time of [grace] left.
func hurried(ctx context.Context, n int, ask func(ctx context.Context, i int) bool) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			if ask(ctx, i) {
				hurry := time.AfterFunc(grace, func() { cancel(errLate) })
				context.AfterFunc(ctx, func() { hurry.Stop() })
			}
		})
	}
	wg.Wait()
}

func (c *surveyor) ask(ctx context.Context, endpoint string) answer {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	st, err := c.status(ctx, endpoint)
	if err != nil && context.Cause(ctx) == errLate {
		err = errLate
	}
	return answer{endpoint: endpoint, status: st, err: err}
}

func (c *surveyor) status(ctx context.Context, endpoint string) (st *pb.StatusResponse, err error) {
	err = c.conns.do(ctx, endpoint, func(cl *clientv3.Client) (err error) {
		st, err = pb.NewMaintenanceClient(cl.ActiveConnection()).Status(ctx, &pb.StatusRequest{})
		if status.Code(err) == codes.Unavailable {
			// After a failure a connection pauses for up to two minutes before it
			// tries again. A member that is back should be seen at once.
			c.conns.forget(endpoint, cl)
		}
		return explain(err)
	})
	return st, err
}

// healthy reports whether nothing speaks against a snapshot of this member.
func (a answer) healthy() bool {
	return a.err == nil && !a.status.IsLearner && a.status.Leader != 0
}

func newCandidate(a answer) Candidate {
	st := a.status
	return Candidate{
		Endpoint:      a.endpoint,
		MemberID:      backup.MemberID(st.Header.GetMemberId()),
		Version:       st.Version,
		Revision:      backup.Revision(st.Header.GetRevision()),
		RaftTerm:      st.RaftTerm,
		AppliedIndex:  st.RaftAppliedIndex,
		DatabaseBytes: st.DbSize,
		InUseBytes:    st.DbSizeInUse,
		QuotaBytes:    st.DbSizeQuota,
		Leader:        st.Leader != 0 && st.Leader == st.Header.GetMemberId(),
		Learner:       st.IsLearner,
		NoLeader:      st.Leader == 0,
		Proxy:         errors.As(a.membersErr, new(*ProxyError)),
	}
}

// alarmPattern matches an alarm among the errors of a status answer. A direct
// request for alarms would go through raft: it would add an entry to the log, and
// fail in a cluster that has lost its quorum.
var alarmPattern = regexp.MustCompile(`^\s*(?:memberID:\s*(\d+)\s+)?alarm:\s*([A-Z]+)`)

// AddAlarms adds the alarms that the errors of a status answer name.
func (s *Survey) AddAlarms(statusErrors []string) {
	for _, text := range statusErrors {
		m := alarmPattern.FindStringSubmatch(text)
		if m == nil {
			continue
		}
		id, _ := strconv.ParseUint(m[1], 10, 64) // no id is member 0: the alarm is about no specific member
		a := backup.Alarm{MemberID: backup.MemberID(id), Type: m[2]}
		if !slices.Contains(s.Alarms, a) {
			s.Alarms = append(s.Alarms, a)
		}
	}
}

// membership takes the list of members from the best candidate that has a believable
// one.
func (s *Survey) membership(answers []answer) {
	var errs []error
	for _, cand := range s.Candidates {
		i := slices.IndexFunc(answers, func(a answer) bool { return a.endpoint == cand.Endpoint })
		if answers[i].membersErr == nil {
			s.Members = answers[i].members
			return
		}
		errs = append(errs, fmt.Errorf("list members of %s: %w", cand.Endpoint, answers[i].membersErr))
	}
	s.MembersErr = errors.Join(errs...)
}

// membersBy asks a member that has answered for its list of members. A learner does not
// serve it, and a user without permission does not get it.
func (c *surveyor) membersBy(ctx context.Context, a *answer) ([]backup.Member, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	var list *clientv3.MemberListResponse
	err := c.conns.do(ctx, a.endpoint, func(cl *clientv3.Client) (err error) {
		list, err = cl.MemberList(ctx, clientv3.WithSerializable())
		return explain(err)
	})
	switch {
	case err != nil && context.Cause(ctx) == errLate:
		return nil, errLate
	case err != nil:
		return nil, err
	}
	var out []backup.Member
	for _, m := range list.Members {
		out = append(out, backup.Member{
			ID: backup.MemberID(m.ID), Name: m.Name, Learner: m.IsLearner,
			PeerURLs: secret.Without(m.PeerURLs), ClientURLs: secret.Without(m.ClientURLs),
		})
	}
	itself := backup.MemberID(a.status.Header.GetMemberId())
	if !slices.ContainsFunc(out, func(m backup.Member) bool { return m.ID == itself }) {
		return nil, proxyError("its list of members lacks member %s, which has answered", itself)
	}
	return out, sameMember(itself, list.Header)
}

// Ranks of a candidate, the lower the better. A snapshot under an alarm or
// without a leader is still worth taking: it may be needed on that very day. It
// only comes after all better ones.
const (
	rankFollower = iota
	rankLeader
	rankLagging
	rankNoSpace
	rankNoLeader
	rankCorrupt
	rankProxy
)

var errLearner = backup.WithHint(errors.New("it is a learner"),
	"to take a learner's snapshot all the same, name it as the only endpoint")

// rank orders the candidates, the best first. A learner is refused unless its
// endpoint is the only one: it may be far behind, and nobody can compare its
// content.
func (s *Survey) rank(newest uint64) {
	var keep []Candidate
	for _, c := range s.Candidates {
		if c.Learner && len(s.Candidates)+len(s.Refused) > 1 {
			s.Refused = append(s.Refused, Refusal{c.Endpoint, errLearner})
			continue
		}
		if c.Learner {
			c.Concerns = append(c.Concerns, "it is a learner: HashKV cannot be compared")
		}
		c.grade(s.Alarms, newest)
		keep = append(keep, c)
	}
	sort.SliceStable(keep, func(i, j int) bool {
		a, b := keep[i], keep[j]
		if a.rank != b.rank {
			return a.rank < b.rank
		}
		return a.MemberID < b.MemberID
	})
	s.Candidates = keep
}

func (c *Candidate) grade(alarms []backup.Alarm, newest uint64) {
	c.rank = rankFollower
	worse := func(rank int, why string) {
		c.rank = max(c.rank, rank)
		if why != "" {
			c.Concerns = append(c.Concerns, why)
		}
	}
	if c.Leader {
		worse(rankLeader, "")
	}
	if lag := newest - c.AppliedIndex; lag > MaxLag {
		worse(rankLagging, fmt.Sprintf("it is %d raft entries behind", lag))
	}
	for _, a := range alarms {
		if a.MemberID != c.MemberID {
			continue
		}
		switch a.Type {
		case pb.AlarmType_CORRUPT.String():
			worse(rankCorrupt, "its CORRUPT alarm is active")
		default:
			worse(rankNoSpace, "its "+a.Type+" alarm is active")
		}
	}
	if c.NoLeader {
		worse(rankNoLeader, "it sees no leader")
	}
	if c.Proxy {
		worse(rankProxy, "a proxy answers there: which member sends the database is not known")
	}
}

// DatabaseBytes is the size of the largest candidate's database, and so the room
// that a snapshot may need.
func (s *Survey) DatabaseBytes() int64 {
	n := int64(0)
	for _, c := range s.Candidates {
		n = max(n, c.DatabaseBytes)
	}
	return n
}
