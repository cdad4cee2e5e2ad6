package snapshot

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/cluster"
	"github.com/etcd-backupd/backupd/internal/etcddb"
)

// questions are requests to the voting members for their HashKV at one revision. A
// member may take seconds to answer, so the requests are sent as soon as the
// revision is known, while the database is still being inspected.
type questions struct {
	source   *cluster.Cluster
	survey   *cluster.Survey
	revision backup.Revision
	voters   []backup.Member
	cancel   context.CancelFunc
	replies  []reply
	done     chan struct{} // closed when all replies are there
}

// reply is the answer of one member, or the error.
type reply struct {
	member cluster.Candidate // as it was before; zero: it was not found
	answer backup.HashKV
	err    error
}

var errNobodyThere = errors.New("neither an endpoint nor one of its client URLs answers as this member")

// ask sends the questions and returns at once.
func ask(
	ctx context.Context, source *cluster.Cluster, s *cluster.Survey, voters []backup.Member, rev backup.Revision,
) *questions {
	q := &questions{
		source: source, survey: s, revision: rev, voters: voters,
		replies: make([]reply, len(voters)), done: make(chan struct{}),
	}
	ctx, q.cancel = context.WithCancel(ctx)
	var wg sync.WaitGroup
	for i, m := range voters {
		wg.Go(func() { q.replies[i] = q.ask(ctx, m) })
	}
	go func() {
		wg.Wait()
		close(q.done)
	}()
	return q
}

// abandon ends questions whose answers are not needed. q may be nil.
func (q *questions) abandon() {
	if q != nil {
		q.cancel()
		<-q.done
	}
}

// askEarly asks for the revision that the database seems to end at. It returns nil
// if that is not known yet: then [Taker.compare] asks.
func (t *Taker) askEarly(ctx context.Context, s *cluster.Survey, path string) *questions {
	voters := voting(s.Members)
	if t.Hashes == SkipHashes || len(voters) == 0 {
		return nil
	}
	rev, err := etcddb.Newest(ctx, path)
	if err != nil {
		return nil // the inspection will report the fault
	}
	return ask(ctx, t.Source, s, voters, rev)
}

func (q *questions) ask(ctx context.Context, m backup.Member) reply {
	member, ok := q.find(ctx, m)
	if !ok {
		return reply{err: errNobodyThere}
	}
	answer, err := q.source.HashKV(ctx, member.Endpoint, q.revision)
	return reply{member, answer, err}
}

// verdict is what the members say of a database.
type verdict struct {
	answers []backup.MemberHash
	// suspect and unconfirmed are the reasons to call the snapshot that.
	suspect, unconfirmed []string
}

// comparePause is the pause before all members are asked once more, if none could be
// compared: a compaction or an election may have come between.
const comparePause = 1500 * time.Millisecond

// compare compares the answers of the voting members with the file.
func (t *Taker) compare(ctx context.Context, s *cluster.Survey, got *received) verdict {
	if t.Hashes == SkipHashes {
		return verdict{answers: []backup.MemberHash{}, suspect: (&comparison{taker: t}).diverged(ctx, s),
			unconfirmed: []string{"the comparison with the members is switched off"}}
	}
	facts, q := got.facts, got.asked
	if q == nil || q.revision != facts.Revision {
		q.abandon()
		voters := voting(s.Members)
		if len(voters) == 0 { // no member listed them, but the database does
			voters = voting(facts.Members)
		}
		q = ask(ctx, t.Source, s, voters, facts.Revision)
	}
	c := &comparison{
		taker: t, facts: facts, path: got.path,
		known: map[backup.Revision]backup.HashKV{facts.HashKV.CompactRevision: facts.HashKV},
	}
	answers := c.answers(ctx, q)
	if !slices.ContainsFunc(answers, compared) {
		select {
		case <-ctx.Done():
		case <-time.After(comparePause):
			answers = c.answers(ctx, ask(ctx, t.Source, s, q.voters, facts.Revision))
		}
	}
	v := verdict{answers: answers, suspect: append(contradictions(answers, facts.HashKV), c.damage...)}
	v.suspect = append(v.suspect, c.diverged(ctx, s)...)
	if !slices.ContainsFunc(answers, compared) {
		v.unconfirmed = notCompared(answers)
	}
	return v
}

// answers waits for the answers to q and compares each.
func (c *comparison) answers(ctx context.Context, q *questions) []backup.MemberHash {
	defer q.abandon()
	progress := c.taker.progress()
	progress(backup.StageCompare, 0, int64(len(q.voters)))
	<-q.done
	c.found = nil
	for _, r := range q.replies {
		if r.member.Endpoint != "" {
			c.found = append(c.found, r.member)
		}
	}
	out := make([]backup.MemberHash, len(q.voters))
	for i, m := range q.voters {
		out[i] = c.compare(ctx, m, q.replies[i])
		if out[i].Result == backup.HashNotComparable && out[i].Endpoint != "" {
			answer, err := c.taker.Source.HashKVNow(ctx, out[i].Endpoint, q.revision)
			if now := c.compare(ctx, m, reply{q.replies[i].member, answer, err}); compared(now) {
				out[i] = now
			}
		}
		progress(backup.StageCompare, int64(i+1), int64(len(q.voters)))
		c.taker.log().Info("compared HashKV", "member", out[i].MemberID, "result", out[i].Result, "detail", out[i].Detail)
	}
	return out
}

// diverged asks all members that are known how far they are, if there is a reason
// to.
func (c *comparison) diverged(ctx context.Context, s *cluster.Survey) []string {
	known := slices.Clone(s.Candidates)
	for _, m := range c.found {
		if s.Endpoint(m.MemberID) == "" {
			known = append(known, m)
		}
	}
	if !c.behind && !cluster.Doubtful(known) {
		return nil
	}
	return c.taker.Source.Divergence(ctx, known)
}

// compared reports whether a member's answer could be compared with the snapshot.
func compared(h backup.MemberHash) bool {
	return h.Result == backup.HashEqual || h.Result == backup.HashDiffers
}

// notCompared says of each member why its answer could not be compared.
func notCompared(answers []backup.MemberHash) []string {
	if len(answers) == 0 {
		return []string{"no voting member of the cluster is known"}
	}
	var out []string
	for _, a := range answers {
		out = append(out, fmt.Sprintf("member %s could not be compared: %s", a.MemberID, a.Detail))
	}
	return out
}

func voting(members []backup.Member) []backup.Member {
	return slices.DeleteFunc(slices.Clone(members), func(m backup.Member) bool { return m.Learner })
}

// comparison holds the hashes of one file by compact revision: a member that has
// compacted since the snapshot was taken hashes fewer records.
type comparison struct {
	taker *Taker
	facts *etcddb.Facts
	path  string
	known map[backup.Revision]backup.HashKV
	// found are the members that were asked.
	found []cluster.Candidate
	// behind says that a member did not reach the revision. damage is why the hash of
	// the file could not be computed.
	behind bool
	damage []string
}

func (c *comparison) compare(ctx context.Context, m backup.Member, r reply) backup.MemberHash {
	out := backup.MemberHash{MemberID: m.ID, Endpoint: r.member.Endpoint, Result: backup.HashUnavailable}
	if errors.Is(r.err, cluster.ErrCompacted) {
		out.Result = backup.HashNotComparable
	}
	if r.err != nil {
		c.behind = c.behind || errors.Is(r.err, cluster.ErrBehind)
		out.Detail = r.err.Error()
		return out
	}
	out.Answer = &r.answer
	own, err := c.at(ctx, r.answer.CompactRevision)
	switch {
	case err != nil:
		out.Result, out.Detail = backup.HashNotComparable, err.Error()
	case own.Hash == r.answer.Hash:
		out.Result = backup.HashEqual
	default:
		out.Result = backup.HashDiffers
		out.Detail = fmt.Sprintf("HashKV %d, the snapshot's is %d (revision %d, compact revision %d)",
			r.answer.Hash, own.Hash, r.answer.Revision, r.answer.CompactRevision)
	}
	return out
}

// find returns the member as it is now, if it is found. It tries the endpoint that
// answered for this member in the survey, then its advertised client URLs, then
// those that the survey did not wait for, and skips those that timed out in the
// survey. It asks each who it is again: HashKV may take minutes, and until then
// nobody would notice that the member was lost since the survey.
func (q *questions) find(ctx context.Context, m backup.Member) (found cluster.Candidate, ok bool) {
	urls := slices.Concat([]string{q.survey.Endpoint(m.ID)}, m.ClientURLs, q.survey.Late())
	for i, u := range urls {
		if u == "" || slices.Contains(urls[:i], u) || q.survey.Unreachable(u) {
			continue
		}
		if is, err := q.source.Identify(ctx, u); err == nil && is.MemberID == m.ID {
			return is, true
		}
	}
	return cluster.Candidate{}, false
}

// at returns the hash of the file as a server with this compact revision computes
// it.
func (c *comparison) at(ctx context.Context, compact backup.Revision) (backup.HashKV, error) {
	if h, ok := c.known[compact]; ok {
		return h, nil
	}
	// A server that is asked for the revision of its last compaction answers with
	// the hash that it stored then. That hash covers records that are gone now.
	if compact < c.facts.HashKV.CompactRevision {
		return backup.HashKV{},
			fmt.Errorf("the member answered for compact revision %d, the snapshot is compacted at %d",
				compact, c.facts.HashKV.CompactRevision)
	}
	h, err := etcddb.HashAt(ctx, c.path, c.facts.HashKV.Revision, compact)
	if errors.Is(err, backup.ErrCorrupt) && len(c.damage) == 0 {
		c.damage = []string{fmt.Sprintf("the hash of the received database cannot be computed: %v", err)}
	}
	if err != nil {
		return backup.HashKV{}, err
	}
	c.known[compact] = h
	return h, nil
}

// contradictions describes the answers that differ from the snapshot or from one
// another.
func contradictions(answers []backup.MemberHash, own backup.HashKV) []string {
	var out []string
	seen := map[backup.HashKV]backup.MemberID{}
	for _, a := range answers {
		if a.Result == backup.HashDiffers {
			out = append(out, fmt.Sprintf("member %s holds other data: %s", a.MemberID, a.Detail))
		}
		if a.Result != backup.HashNotComparable || a.Answer == nil {
			continue
		}
		for other, id := range seen {
			if other.CompactRevision == a.Answer.CompactRevision && other.Hash != a.Answer.Hash {
				out = append(out, fmt.Sprintf("members %s and %s hold different data at revision %d",
					id, a.MemberID, own.Revision))
			}
		}
		seen[*a.Answer] = a.MemberID
	}
	return out
}

// Confirm asks one voting member, a follower first, whether it holds the data of a
// snapshot now. It returns nil if it does, and else why not, or why no member could
// be compared.
func Confirm(ctx context.Context, source *cluster.Cluster, s *cluster.Survey, m *backup.Manifest) error {
	var errs []error
	for _, c := range s.Candidates { // followers come first
		if c.Learner {
			continue
		}
		answer, err := source.HashKV(ctx, c.Endpoint, m.Revision)
		if err != nil || answer.CompactRevision != m.HashKV.CompactRevision {
			answer, err = source.HashKVNow(ctx, c.Endpoint, m.Revision)
		}
		switch {
		case err != nil:
			errs = append(errs, err)
		case answer == m.HashKV:
			return nil
		case answer.CompactRevision == m.HashKV.CompactRevision:
			return fmt.Errorf("member %s holds other data at revision %d than snapshot %s", c.MemberID, m.Revision, m.ID)
		default:
			errs = append(errs, fmt.Errorf("member %s is compacted at revision %d, snapshot %s at %d",
				c.MemberID, answer.CompactRevision, m.ID, m.HashKV.CompactRevision))
		}
	}
	return fmt.Errorf("no voting member confirms snapshot %s: %w", m.ID, errors.Join(errs...))
}
