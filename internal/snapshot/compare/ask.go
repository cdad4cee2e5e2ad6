package compare

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/dustin/go-humanize"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/cluster"
)

const (
	// slowAfter is how long a member may take to say how far it is, and for one
	// serializable read. More means that its disk is slow, or that something has stopped
	// it: another question for HashKV, a defragmentation.
	slowAfter = 500 * time.Millisecond
	// patience is how long a comparison waits for a slow member.
	patience  = 10 * time.Second
	lookPause = 500 * time.Millisecond
)

// LeaderLimit is how large the part of a leader's database may be that is in use, in
// bytes, so that it is asked for HashKV when nobody else can answer.
const LeaderLimit = 512 << 20

var (
	errNobodyThere = errors.New("neither an endpoint nor one of its client URLs answers as this member")
	errLearner     = errors.New("it is a learner, which answers no HashKV")
	errGoneBefore  = errors.New(
		"it was not asked, because it leads the cluster, and another member has compacted the revision")
)

// SlowError says that nobody was asked, because a member was slow.
type SlowError struct {
	Member backup.MemberID
	Took   time.Duration // to answer
}

func (e *SlowError) Error() string {
	return fmt.Sprintf("nobody is asked while a member is slow: member %s takes %v to answer", e.Member,
		e.Took.Round(time.Millisecond))
}

// LargeLeaderError says that the leader was not asked, because its database is large.
type LargeLeaderError struct{ Bytes int64 }

func (e *LargeLeaderError) Error() string {
	return fmt.Sprintf("it was not asked, because it leads the cluster, and HashKV over %s would stop it for too long "+
		"(over %s only hash-check: all asks it)", humanize.IBytes(uint64(e.Bytes)), humanize.IBytes(LeaderLimit))
}

// asker asks the voting members of one cluster for HashKV, one at a time.
type asker struct {
	source   *cluster.Cluster
	survey   *cluster.Survey
	voters   []backup.Member
	patience time.Duration
	// anyLeader says that the leader is asked whatever its size is.
	anyLeader bool
	// compacted says that a member has compacted the revision: so has the leader, or it will
	// have when it is asked.
	compacted bool

	// seen is what the last look has shown. gone are the members that no look will find,
	// and why.
	seen map[backup.MemberID]sight
	gone map[backup.MemberID]error
}

// sight is what one look at a member has shown.
type sight struct {
	cluster.Candidate
	took time.Duration // to answer
}

// reply is the answer of one member, or the error.
type reply struct {
	member backup.MemberID
	at     cluster.Candidate // as it was just before; zero: it was not found
	answer backup.HashKV
	err    error
}

// question is how a member is asked: [cluster.Cluster.HashKV] or HashKVNow.
type question func(ctx context.Context, of cluster.Candidate, rev backup.Revision) (backup.HashKV, error)

// ask asks the member that choose returns when all members were looked at. It waits
// until no other question of this process to the cluster is under way, and until no
// member is slow. If one stays slow, nobody is asked: the error is a [*SlowError].
func (a *asker) ask(ctx context.Context, put question, rev backup.Revision, choose func() backup.MemberID) reply {
	leave, err := enter(ctx, a.survey.ClusterID)
	if err != nil {
		return reply{member: choose(), err: err}
	}
	defer leave()
	slow := a.wait(ctx)
	r := reply{member: choose()}
	at, found := a.seen[r.member]
	r.at = at.Candidate
	switch {
	case slow != nil:
		r.err = slow
	case !found:
		r.err = cmp.Or(a.gone[r.member], errNobodyThere)
	case at.Learner:
		r.err = errLearner
	case !a.anyLeader && a.compacted && at.Leader:
		r.err = errGoneBefore
	case !a.anyLeader && LargeLeader(at.Candidate):
		r.err = &LargeLeaderError{inUse(at.Candidate)}
	default:
		r.answer, r.err = put(ctx, at.Candidate, rev)
	}
	return r
}

// LargeLeader reports whether a member leads and is above [LeaderLimit].
func LargeLeader(c cluster.Candidate) bool { return c.Leader && inUse(c) > LeaderLimit }

func inUse(c cluster.Candidate) int64 { return cmp.Or(c.InUseBytes, c.DatabaseBytes) }

// leads reports whether a member was seen to lead.
func (a *asker) leads(id backup.MemberID) bool { return a.seen[id].Leader }

// wait looks at all members until none is slow.
func (a *asker) wait(ctx context.Context) error {
	for end := time.Now().Add(a.patience); ; {
		a.look(ctx)
		slow := slowest(a.seen)
		if slow == nil {
			return nil
		}
		if time.Now().After(end) {
			return slow
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(lookPause):
		}
	}
}

// slowest returns the slowest of the members that are slow, or nil.
func slowest(seen map[backup.MemberID]sight) error {
	var slow *SlowError
	for id, s := range seen {
		if s.took > slowAfter && (slow == nil || s.took > slow.Took) {
			slow = &SlowError{id, s.took}
		}
	}
	if slow == nil {
		return nil
	}
	return slow
}

// look looks at all voting members at once. One that does not answer at all is down, and
// may be for days: nobody waits for it.
func (a *asker) look(ctx context.Context) {
	sights, errs := make([]sight, len(a.voters)), make([]error, len(a.voters))
	var wg sync.WaitGroup
	for i, m := range a.voters {
		if errs[i] = a.gone[m.ID]; errs[i] == nil {
			wg.Go(func() { sights[i], errs[i] = a.find(ctx, m) })
		}
	}
	wg.Wait()
	a.seen, a.gone = map[backup.MemberID]sight{}, map[backup.MemberID]error{}
	for i, m := range a.voters {
		if errs[i] == nil {
			a.seen[m.ID] = sights[i]
		}
		a.gone[m.ID] = errs[i]
	}
}

// find returns the member as it is now, if it is found. It tries the endpoint that
// answered for this member in the survey, then its advertised client URLs, then
// those that the survey did not wait for, and skips those that timed out in the
// survey. It asks each who it is again: HashKV may take minutes, and until then
// nobody would notice that the member was lost since the survey.
func (a *asker) find(ctx context.Context, m backup.Member) (sight, error) {
	why := errNobodyThere
	urls := slices.Concat([]string{a.survey.Endpoint(m.ID)}, m.ClientURLs, a.survey.Late())
	for i, u := range urls {
		if u == "" || slices.Contains(urls[:i], u) || a.survey.Unreachable(u) {
			continue
		}
		is, took, err := a.source.Probe(ctx, u)
		if err == nil && is.MemberID == m.ID {
			return sight{is, took}, nil
		}
		if errors.As(err, new(*cluster.InsecureError)) {
			why = err
		}
	}
	return sight{}, why
}

// found returns the members that the last look has shown.
func (a *asker) found() []cluster.Candidate {
	var out []cluster.Candidate
	for _, m := range a.voters {
		if s, ok := a.seen[m.ID]; ok {
			out = append(out, s.Candidate)
		}
	}
	return out
}

// gates let one question at a time through to each cluster, by the cluster's id: it may
// have snapshots in several repositories.
var gates = struct {
	sync.Mutex
	of map[backup.MemberID]chan struct{}
}{of: map[backup.MemberID]chan struct{}{}}

// enter waits until the caller may ask a member of the cluster.
func enter(ctx context.Context, id backup.MemberID) (leave func(), err error) {
	gates.Lock()
	gate := gates.of[id]
	if gate == nil {
		gate = make(chan struct{}, 1)
		gates.of[id] = gate
	}
	gates.Unlock()
	select {
	case gate <- struct{}{}:
		return func() { <-gate }, nil
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}
