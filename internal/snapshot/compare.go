package snapshot

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/cluster"
	"github.com/etcd-backupd/backupd/internal/etcddb"
)

// compare asks every voting member for its hash of the keys at the snapshot's
// revision and holds it against the file. It returns the answers, and what they
// make suspect.
func (t *Taker) compare(ctx context.Context, s *cluster.Survey, facts *etcddb.Facts, path string) ([]backup.MemberHash, []string) {
	if t.Hashes == SkipHashes {
		return []backup.MemberHash{}, nil
	}
	c := &comparison{
		taker: t, survey: s, facts: facts, path: path,
		known: map[backup.Revision]backup.HashKV{facts.HashKV.CompactRevision: facts.HashKV},
	}
	voters := c.voters()
	out := make([]backup.MemberHash, len(voters))
	var answered atomic.Int64
	var wg sync.WaitGroup
	for i, m := range voters {
		wg.Go(func() {
			out[i] = c.ask(ctx, m)
			t.Progress(StageCompare, answered.Add(1), int64(len(voters)))
		})
	}
	wg.Wait()
	for _, h := range out {
		t.Log.Info("compared HashKV", "member", h.MemberID, "result", h.Result, "detail", h.Detail)
	}
	return out, contradictions(out, facts.HashKV)
}

// comparison holds the hashes of one file, by compact revision: a member may
// have compacted since the snapshot was taken, and then hashes less.
type comparison struct {
	taker  *Taker
	survey *cluster.Survey
	facts  *etcddb.Facts
	path   string

	mu    sync.Mutex // guards known, and lets one member's question wait for another's scan
	known map[backup.Revision]backup.HashKV
}

// voters are the members that vote, as the cluster tells it, or, where nobody
// would tell, as the database does.
func (c *comparison) voters() []backup.Member {
	members := c.survey.Members
	if len(members) == 0 {
		members = c.facts.Members
	}
	return slices.DeleteFunc(slices.Clone(members), func(m backup.Member) bool { return m.Learner })
}

func (c *comparison) ask(ctx context.Context, m backup.Member) backup.MemberHash {
	out := backup.MemberHash{MemberID: m.ID, Result: backup.HashUnavailable}
	endpoint := c.find(ctx, m)
	if endpoint == "" {
		out.Detail = "neither an endpoint nor one of its client URLs answers as this member"
		return out
	}
	out.Endpoint = endpoint
	answer, err := c.taker.Source.HashKV(ctx, endpoint, c.facts.HashKV.Revision)
	if errors.Is(err, cluster.ErrCompacted) {
		out.Result, out.Detail = backup.HashNotComparable, err.Error()
		return out
	}
	if err != nil {
		out.Detail = err.Error()
		return out
	}
	out.Answer = &answer
	own, err := c.at(ctx, answer.CompactRevision)
	switch {
	case err != nil:
		out.Result, out.Detail = backup.HashNotComparable, err.Error()
	case own.Hash == answer.Hash:
		out.Result = backup.HashEqual
	default:
		out.Result = backup.HashDiffers
		out.Detail = fmt.Sprintf("HashKV %d, the snapshot's is %d (revision %d, compact revision %d)", answer.Hash, own.Hash, answer.Revision, answer.CompactRevision)
	}
	return out
}

// find looks for the member where it answered before, and behind the client
// URLs it advertises, but not where the survey waited in vain. Who is there is
// asked again: HashKV may take minutes, so a member lost since would not be
// noticed for as long.
func (c *comparison) find(ctx context.Context, m backup.Member) string {
	urls := append([]string{c.survey.Endpoint(m.ID)}, m.ClientURLs...)
	for i, u := range urls {
		if u == "" || slices.Contains(urls[:i], u) || c.survey.Unreachable(u) {
			continue
		}
		if id, err := c.taker.Source.Identify(ctx, u); err == nil && id == m.ID {
			return u
		}
	}
	return ""
}

// at returns the file's hash as a server with another compact revision would
// compute it.
func (c *comparison) at(ctx context.Context, compact backup.Revision) (backup.HashKV, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if h, ok := c.known[compact]; ok {
		return h, nil
	}
	// Asked for the very revision of its last compaction, a server answers with
	// the hash it made then, of records that are gone by now.
	if compact < c.facts.HashKV.CompactRevision {
		return backup.HashKV{}, fmt.Errorf("the member answered for compact revision %d, the snapshot is compacted at %d", compact, c.facts.HashKV.CompactRevision)
	}
	h, err := etcddb.HashAt(ctx, c.path, c.facts.HashKV.Revision, compact)
	if err != nil {
		return backup.HashKV{}, err
	}
	c.known[compact] = h
	return h, nil
}

// contradictions tells which answers speak against the snapshot or against one
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
				out = append(out, fmt.Sprintf("members %s and %s hold different data at revision %d", id, a.MemberID, own.Revision))
			}
		}
		seen[*a.Answer] = a.MemberID
	}
	return out
}
