package replace

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/cluster"
	"github.com/etcd-backupd/backupd/internal/members"
)

// requestLimit bounds one request that changes the cluster or takes a quorum. etcd itself
// gives up after about 7 seconds.
const requestLimit = 10 * time.Second

// hopeless bounds one that most likely gets no answer, for too few members answer.
const hopeless = 2 * time.Second

// state is what the cluster and the folder say at one moment.
type state struct {
	clusterID backup.MemberID
	members   []backup.Member // as a quorum confirms
	// seen are the members that answered themselves, voters and learners.
	seen   map[backup.MemberID]cluster.Candidate
	silent map[backup.MemberID]error // why others did not
	// passing says that a member is there, or may be, and answered no question: it may in a
	// moment.
	passing bool
	alarms  []backup.Alarm
	index   uint64 // the newest raft index that any member has applied

	note   *note          // of a replacement that is under way
	target *backup.Member // the member that is replaced, or the new one; nil: neither is there
	wanted []string       // the peer URLs of the new member
	held   contents       // what is in the folder
}

func (s *state) alive(id backup.MemberID) bool { _, ok := s.seen[id]; return ok }

// others are the voting members besides the one that is replaced.
func (s *state) others() []backup.Member {
	return slices.DeleteFunc(slices.Clone(s.members), func(m backup.Member) bool {
		return m.Learner || s.target != nil && m.ID == s.target.ID
	})
}

// asker finds out how things stand.
type asker struct {
	cluster *cluster.Cluster
	o       *Options
	folders *folders
}

// look asks everybody, and looks into the folder.
func (a *asker) look(ctx context.Context) (*state, error) {
	survey, err := a.cluster.Survey(ctx)
	if err != nil {
		return nil, unserved(ctx, err)
	}
	if err := survey.MembersErr; err != nil {
		err = fmt.Errorf("the members of the cluster are not known: %w", err)
		if errors.Is(err, cluster.ErrPermission) {
			return nil, err
		}
		return nil, &unsettledError{err}
	}
	s := &state{
		clusterID: survey.ClusterID, alarms: survey.Alarms, index: survey.Index,
		seen: map[backup.MemberID]cluster.Candidate{}, silent: map[backup.MemberID]error{},
	}
	for _, c := range survey.Candidates {
		if c.Proxy {
			return nil, backup.WithHint(&backup.RefusedError{Reason: fmt.Sprintf(
				"a proxy answers at %s: which member that is, is not known", c.Endpoint)},
				"name the client URLs of the members themselves: --endpoints")
		}
		s.seen[c.MemberID] = c
	}
	a.ask(ctx, s, survey)
	if s.members, err = a.list(ctx, s, survey); err != nil {
		return nil, err
	}
	if s.note, err = a.folders.readNote(); err != nil {
		return nil, err
	}
	if s.held, err = a.folders.look(); err != nil {
		return nil, err
	}
	if err := a.identify(s); err != nil {
		return nil, err
	}
	return s, nil
}

const lost = "start a member that still has its data: then this command replaces the other; if none comes back, the " +
	"cluster is lost, and is restored: backupd restore --help"

// unserved tells members that are there and serve nobody, for a moment or because there is no
// quorum, from those that cannot be reached. With auth on nobody can log in then.
func unserved(ctx context.Context, err error) error {
	var none *cluster.NoMemberError
	if ctx.Err() != nil || !errors.As(err, &none) {
		return err
	}
	var said []string
	there := false
	for _, refused := range none.Refusals {
		if errors.Is(refused.Err, cluster.ErrPermission) {
			return err
		}
		said = append(said, fmt.Sprintf("%s: %v", refused.Endpoint, refused.Err))
		there = there || mayPass(refused.Err)
	}
	if !there {
		return err
	}
	return &unsettledError{backup.WithHint(&backup.RefusedError{
		Reason: "no member serves requests, so most likely the cluster has no quorum: " + strings.Join(said, "; "),
	}, "with a majority down no member can be replaced: "+lost)}
}

// mayPass reports whether an error is of a member that is there, or may be: in an election it
// serves nobody, and without a quorum too.
func mayPass(err error) bool {
	return strings.Contains(err.Error(), "etcdserver: ") || errors.Is(err, context.DeadlineExceeded)
}

// refuse refuses at once, or after some patience if a member may answer in a moment.
func (s *state) refuse(err error) error {
	if s.passing {
		return &unsettledError{err}
	}
	return err
}

// ask looks for the members that did not answer at an endpoint: learners, slow ones, and
// those whose endpoint was not given.
func (a *asker) ask(ctx context.Context, s *state, survey *cluster.Survey) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	saw := func(c cluster.Candidate) {
		mu.Lock()
		defer mu.Unlock()
		if _, ok := s.seen[c.MemberID]; !ok {
			s.seen[c.MemberID] = c
			s.index = max(s.index, c.AppliedIndex)
		}
	}
	unseen := slices.DeleteFunc(slices.Clone(survey.Members), func(m backup.Member) bool { return s.alive(m.ID) })
	for _, refused := range survey.Refused {
		if len(unseen) == 0 {
			break
		}
		wg.Go(func() {
			c, err := a.cluster.Identify(ctx, refused.Endpoint)
			if c, ok := learner(c, err, refused.Endpoint, unseen); ok {
				saw(c)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			s.passing = s.passing || mayPass(err)
		})
	}
	for _, m := range unseen {
		for _, url := range m.ClientURLs {
			wg.Go(func() {
				c, _, err := a.cluster.Probe(ctx, url)
				if c, ok := learner(c, err, url, []backup.Member{m}); ok && c.MemberID == m.ID {
					saw(c)
					return
				}
				if err == nil {
					err = fmt.Errorf("member %s answers there", c.MemberID)
				}
				mu.Lock()
				defer mu.Unlock()
				s.silent[m.ID], s.passing = fmt.Errorf("%s: %w", url, err), s.passing || mayPass(err)
			})
		}
	}
	wg.Wait()
}

// learner returns who answered. A learner lets nobody log in, and so it tells with a user and
// a password only that it is one.
func learner(c cluster.Candidate, err error, at string, which []backup.Member) (cluster.Candidate, bool) {
	if err == nil {
		return c, true
	}
	which = slices.DeleteFunc(slices.Clone(which), func(m backup.Member) bool { return len(which) > 1 && !m.Learner })
	if !strings.Contains(err.Error(), "rpc not supported for learner") || len(which) != 1 {
		return c, false
	}
	return cluster.Candidate{Endpoint: at, MemberID: which[0].ID, Learner: true}, true
}

// list is the list of members as a quorum has it.
func (a *asker) list(ctx context.Context, s *state, survey *cluster.Survey) ([]backup.Member, error) {
	voters, answer := 0, 0
	var silent []string
	for _, m := range survey.Members {
		if m.Learner {
			continue
		}
		voters++
		if s.alive(m.ID) {
			answer++
		} else {
			silent = append(silent, s.why(m))
		}
	}
	few := answer < voters/2+1
	limit := requestLimit
	if few {
		limit = hopeless
	}
	var out []backup.Member
	err := a.voter(ctx, s, limit, func(ctx context.Context, cl *clientv3.Client) error {
		resp, err := cl.MemberList(ctx) // linearizable
		if err != nil {
			return err
		}
		out = nil
		for _, m := range resp.Members {
			out = append(out, backup.Member{
				ID: backup.MemberID(m.ID), Name: m.Name, Learner: m.IsLearner,
				PeerURLs: m.PeerURLs, ClientURLs: m.ClientURLs,
			})
		}
		return nil
	})
	switch {
	case err == nil || errors.Is(err, cluster.ErrPermission):
		return out, err
	case few:
		return nil, s.refuse(backup.WithHint(&backup.RefusedError{Reason: fmt.Sprintf(
			"the cluster has no quorum: %d of its %d voting members answer, and a change takes %d (%s)",
			answer, voters, voters/2+1, strings.Join(silent, "; "))}, lost))
	}
	return nil, &unsettledError{fmt.Errorf("no quorum confirms the list of members: %w", err)}
}

// why says that a member does not answer, and the reason if that is known.
func (s *state) why(m backup.Member) string {
	text := fmt.Sprintf("member %s does not answer", nameOf(m))
	if err := s.silent[m.ID]; err != nil {
		text += fmt.Sprintf(" at %v", err)
	}
	return text
}

func nameOf(m backup.Member) string {
	if m.Name == "" {
		return fmt.Sprintf("%s (%s, never started)", m.ID, join(m.PeerURLs))
	}
	return fmt.Sprintf("%s (%s)", m.Name, m.ID)
}

func join(urls []string) string { return strings.Join(urls, ",") }

// voter makes a request of one voting member, the leader if that answers.
func (a *asker) voter(
	ctx context.Context, s *state, limit time.Duration, request func(context.Context, *clientv3.Client) error,
) error {
	all := s.voters()
	if len(all) == 0 {
		return &unsettledError{errors.New("no other voting member answers")}
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return a.cluster.Do(ctx, all[0].Endpoint, func(cl *clientv3.Client) error { return request(ctx, cl) })
}

// voters are the voting members that answer, but for the one that is replaced: the leader
// first, which knows best.
func (s *state) voters() []cluster.Candidate {
	var out []cluster.Candidate
	for _, c := range s.seen {
		if !c.Learner && (s.target == nil || c.MemberID != s.target.ID) {
			out = append(out, c)
		}
	}
	slices.SortFunc(out, func(a, b cluster.Candidate) int {
		switch {
		case a.Leader != b.Leader && a.Leader:
			return -1
		case a.Leader != b.Leader:
			return 1
		case a.MemberID < b.MemberID:
			return -1
		}
		return 1
	})
	return out
}

// identify finds the member that is replaced, or the new one, among the members.
func (a *asker) identify(s *state) error {
	if n := s.note; n != nil && (n.ClusterID != s.clusterID || n.Member != a.o.Name) {
		return backup.WithHint(&backup.RefusedError{Reason: fmt.Sprintf(
			"the replacement of member %s of cluster %s was begun in this folder on %s, and is not finished (%s)",
			n.Member, n.ClusterID, n.Begun.Format(time.DateTime), a.folders.notePath())},
			"finish that one first; if it was given up, remove %s", a.folders.notePath())
	}
	var named []backup.Member
	for _, m := range s.members {
		if m.Name == a.o.Name {
			named = append(named, m)
		}
	}
	switch {
	case len(named) > 1:
		return backup.WithHint(&backup.RefusedError{Reason: fmt.Sprintf(
			"%d members have the name %s: %s and %s", len(named), a.o.Name, named[0].ID, named[1].ID)},
			"remove the one that is wrong first: etcdctl member remove ID")
	case len(named) == 1:
		s.target = &named[0]
	}
	switch {
	case len(a.o.PeerURLs) > 0:
		s.wanted = a.o.PeerURLs
	case s.note != nil:
		s.wanted = s.note.PeerURLs
	case s.target != nil:
		s.wanted = s.target.PeerURLs
	}
	if s.target == nil {
		s.target = added(s.members, s.wanted)
	}
	if s.target == nil && s.note == nil && !a.o.Removed {
		return a.unknown(s)
	}
	if own := a.o.Advertised; len(a.o.PeerURLs) == 0 && len(own) > 0 && !members.SameURLs(own, s.wanted) {
		return &URLsError{Member: a.o.Name, Cluster: s.wanted, Advertised: own}
	}
	return checkURLs(s)
}

// URLsError says that a member's own settings have other peer URLs than the cluster: with its
// settings as they are the new member would not be let in. It is a refusal.
type URLsError struct {
	Member              string
	Cluster, Advertised []string
}

// Error shows both.
func (e *URLsError) Error() string { return e.Unwrap().Error() }

// Unwrap makes it a refusal.
func (e *URLsError) Unwrap() error {
	return &backup.RefusedError{Reason: fmt.Sprintf(
		"in the cluster member %s has the peer URLs %s, and in its own settings %s", e.Member, join(e.Cluster),
		join(e.Advertised))}
}

// added is the member that was added with these URLs and has not started yet.
func added(all []backup.Member, urls []string) *backup.Member {
	for _, m := range all {
		if m.Name == "" && len(urls) > 0 && sameURLs(m.PeerURLs, urls) {
			return &m
		}
	}
	return nil
}

func sameURLs(a, b []string) bool {
	return slices.Equal(slices.Sorted(slices.Values(a)), slices.Sorted(slices.Values(b)))
}

// UnknownError says that the cluster has no member of the name. It is a refusal.
type UnknownError struct {
	Member string
	Others []backup.Member
	// Added are those of them that are learners and have never started: each may be the member,
	// if an earlier call with another folder has added it.
	Added []backup.Member
}

// Error names the members that the cluster has.
func (e *UnknownError) Error() string { return e.Unwrap().Error() }

// Unwrap makes it a refusal.
func (e *UnknownError) Unwrap() error {
	var names []string
	for _, m := range e.Others {
		names = append(names, nameOf(m))
	}
	return &backup.RefusedError{Override: "--removed", Reason: fmt.Sprintf(
		"the cluster has no member %s: it has %s", e.Member, strings.Join(names, ", "))}
}

func (a *asker) unknown(s *state) error {
	e := &UnknownError{Member: a.o.Name, Others: s.members}
	for _, m := range s.members {
		if m.Learner && m.Name == "" {
			e.Added = append(e.Added, m)
		}
	}
	if len(e.Added) > 0 {
		return e
	}
	return backup.WithHint(e,
		"give the name of one of these with --name; if %s was removed from the cluster already, add it again by "+
			"--removed and --peer-urls", a.o.Name)
}

// checkURLs refuses peer URLs of another member.
func checkURLs(s *state) error {
	for _, m := range s.members {
		if s.target != nil && m.ID == s.target.ID {
			continue
		}
		for _, url := range s.wanted {
			if slices.Contains(m.PeerURLs, url) {
				return &backup.RefusedError{Reason: fmt.Sprintf("%s is a peer URL of member %s", url, nameOf(m))}
			}
		}
	}
	return nil
}

// isNew reports whether a member is the one that this replacement has added.
func (s *state) isNew(m *backup.Member) bool {
	return m.Learner || m.Name == "" || s.note != nil && s.note.ReplacedID != m.ID
}
