package snapshot

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"

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
	endpoint string
	answer   backup.HashKV
	err      error
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
	endpoint := q.find(ctx, m)
	if endpoint == "" {
		return reply{err: errNobodyThere}
	}
	answer, err := q.source.HashKV(ctx, endpoint, q.revision)
	return reply{endpoint, answer, err}
}

// compare compares the answers of the voting members with the file. It returns the
// answers, and the reasons that they give to suspect the snapshot.
func (t *Taker) compare(ctx context.Context, s *cluster.Survey, got *received) ([]backup.MemberHash, []string) {
	if t.Hashes == SkipHashes {
		return []backup.MemberHash{}, nil
	}
	facts, q, progress := got.facts, got.asked, t.progress()
	if q == nil || q.revision != facts.Revision {
		q.abandon()
		voters := voting(s.Members)
		if len(voters) == 0 { // no member listed them, but the database does
			voters = voting(facts.Members)
		}
		q = ask(ctx, t.Source, s, voters, facts.Revision)
	}
	defer q.abandon()
	progress(backup.StageCompare, 0, int64(len(q.voters)))
	<-q.done
	c := &comparison{
		facts: facts, path: got.path,
		known: map[backup.Revision]backup.HashKV{facts.HashKV.CompactRevision: facts.HashKV},
	}
	out := make([]backup.MemberHash, len(q.voters))
	for i, m := range q.voters {
		out[i] = c.compare(ctx, m, q.replies[i])
		progress(backup.StageCompare, int64(i+1), int64(len(q.voters)))
		t.log().Info("compared HashKV", "member", out[i].MemberID, "result", out[i].Result, "detail", out[i].Detail)
	}
	return out, contradictions(out, facts.HashKV)
}

func voting(members []backup.Member) []backup.Member {
	return slices.DeleteFunc(slices.Clone(members), func(m backup.Member) bool { return m.Learner })
}

// comparison holds the hashes of one file by compact revision: a member that has
// compacted since the snapshot was taken hashes fewer records.
type comparison struct {
	facts *etcddb.Facts
	path  string
	known map[backup.Revision]backup.HashKV
}

func (c *comparison) compare(ctx context.Context, m backup.Member, r reply) backup.MemberHash {
	out := backup.MemberHash{MemberID: m.ID, Endpoint: r.endpoint, Result: backup.HashUnavailable}
	if errors.Is(r.err, cluster.ErrCompacted) {
		out.Result = backup.HashNotComparable
	}
	if r.err != nil {
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

// find returns an endpoint of the member, or "". It tries the endpoint that
// answered for this member in the survey, then its advertised client URLs, and
// skips those that timed out in the survey. It asks each who it is again: HashKV
// may take minutes, and until then nobody would notice that the member was lost
// since the survey.
func (q *questions) find(ctx context.Context, m backup.Member) string {
	urls := append([]string{q.survey.Endpoint(m.ID)}, m.ClientURLs...)
	for i, u := range urls {
		if u == "" || slices.Contains(urls[:i], u) || q.survey.Unreachable(u) {
			continue
		}
		if id, err := q.source.Identify(ctx, u); err == nil && id == m.ID {
			return u
		}
	}
	return ""
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
