// Package compare asks the voting members of a live cluster whether they hold the
// data of a snapshot. etcd's HashKV is their answer. etcd computes it under a lock that
// stops the member, so one member is asked at a time, a follower first, and none while
// another is slow.
package compare

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/cluster"
	"github.com/etcd-backupd/backupd/internal/etcddb"
)

// Comparer compares snapshots with the members of one cluster.
type Comparer struct {
	Source *cluster.Cluster
	Policy Policy
	// Turns are the comparisons before. They say whose turn it is.
	Turns    Turns
	Log      *slog.Logger
	Progress backup.Progress

	patience time.Duration // zero: the constant of that name
}

func (c *Comparer) asker(s *cluster.Survey, voters []backup.Member) asker {
	return asker{source: c.Source, survey: s, voters: voters, patience: cmp.Or(c.patience, patience),
		anyLeader: c.Policy == All}
}

// Comparison is that of one snapshot.
type Comparison struct {
	*Comparer
	asker
	from backup.MemberID // whose database it is
	path string
	// all says that everybody is asked, whatever the first one answers.
	all bool
	// behind says that a member did not reach the revision.
	behind bool
	// mayChange says that a member could not be compared for a reason that may pass.
	mayChange bool

	// The first member is asked in the background.
	cancel   context.CancelFunc
	done     chan struct{}   // closed when what follows is set
	revision backup.Revision // that it was asked for; 0: nobody was asked
	first    reply
}

// Begin begins to compare a database that was received from a member into a file. A
// member may take seconds for its answer, so the first one is asked as soon as the
// revision is known, while the database is still being inspected. The caller calls
// [Comparison.Verdict] or [Comparison.Abandon].
func (c *Comparer) Begin(ctx context.Context, s *cluster.Survey, from backup.MemberID, path string) *Comparison {
	n := &Comparison{Comparer: c, asker: c.asker(s, voting(s.Members)), from: from, path: path, all: c.Policy == All,
		done: make(chan struct{})}
	ctx, n.cancel = context.WithCancel(ctx)
	go func() {
		defer close(n.done)
		if c.Policy == Off || len(n.voters) == 0 {
			return
		}
		if rev, err := etcddb.Newest(ctx, path); err == nil { // the inspection will report the fault
			n.first, n.revision = n.ask(ctx, c.Source.HashKV, rev, n.turn(n.ids())), rev
		}
	}()
	return n
}

// Abandon ends a comparison whose verdict is not needed.
func (n *Comparison) Abandon() {
	n.cancel()
	<-n.done
}

func (n *Comparison) ids() []backup.MemberID {
	var out []backup.MemberID
	for _, m := range n.voters {
		out = append(out, m.ID)
	}
	return out
}

// turn returns a function that returns whose turn it is.
func (n *Comparison) turn(left []backup.MemberID) func() backup.MemberID {
	return func() backup.MemberID { return n.Turns.next(left, n.from, n.leads) }
}

// Verdict is what the members say of a database.
type Verdict struct {
	// Answers are those of the members that were asked, in the order of the members.
	Answers []backup.MemberHash
	// Suspect and Unconfirmed are the reasons to call the snapshot that.
	Suspect, Unconfirmed []string
}

// comparePause is the pause before members are asked once more, if none could be
// compared: a compaction or an election may have come between.
const comparePause = 1500 * time.Millisecond

// Verdict compares the answers of the members with the facts of the file.
func (n *Comparison) Verdict(ctx context.Context, facts *etcddb.Facts) Verdict {
	defer n.Abandon()
	if n.Policy == Off {
		return Verdict{Answers: []backup.MemberHash{}, Suspect: n.diverged(ctx),
			Unconfirmed: []string{"the comparison with the members is switched off"}}
	}
	n.Progress(backup.StageCompare, 0, n.total(0))
	<-n.done
	if len(n.voters) == 0 { // no member listed them, but the database does
		n.voters = voting(facts.Members)
	}
	f := newFile(n.path, facts.HashKV)
	answers, slow := n.round(ctx, f, facts.Revision, n.revision == facts.Revision)
	if !slow && n.mayChange && !slices.ContainsFunc(answers, compared) {
		select {
		case <-ctx.Done():
		case <-time.After(comparePause):
			n.gone = nil
			answers, _ = n.round(ctx, f, facts.Revision, false)
		}
	}
	v := Verdict{Answers: answers, Suspect: append(contradictions(answers, facts.HashKV), f.damage...)}
	v.Suspect = append(v.Suspect, n.diverged(ctx)...)
	if !slices.ContainsFunc(answers, compared) {
		v.Unconfirmed = notCompared(answers)
	}
	return v
}

// total is how many members will be asked, as far as that is known.
func (n *Comparison) total(asked int) int64 {
	if n.all {
		return int64(len(n.voters))
	}
	return int64(max(asked, 1))
}

// round asks one member after the other until one holds the same data or, if all are
// asked, until nobody is left. If one holds other data, all the others are asked who is
// right. slow says that it was given up, because a member is slow. begun says that the
// first reply is there.
func (n *Comparison) round(
	ctx context.Context, f *file, rev backup.Revision, begun bool,
) (out []backup.MemberHash, slow bool) {
	order := n.ids()
	for left := order; len(left) > 0; {
		r := n.first
		switch {
		case slow: // nobody waits again
			r = reply{member: n.turn(left)(), err: r.err}
		case !begun:
			r = n.ask(ctx, n.Source.HashKV, rev, n.turn(left))
		}
		begun, n.first = false, r
		slow = slow || errors.As(r.err, new(*SlowError))
		n.mayChange = n.mayChange || !errors.As(r.err, new(*LargeLeaderError))
		n.compacted = n.compacted || errors.Is(r.err, cluster.ErrCompacted) && !n.leads(r.member)
		h := n.answer(ctx, f, rev, r)
		out, left = append(out, h), slices.DeleteFunc(slices.Clone(left), func(id backup.MemberID) bool {
			return id == r.member
		})
		if h.Result == backup.HashDiffers {
			n.all, n.anyLeader = true, true // something is wrong: who is right?
		}
		n.Progress(backup.StageCompare, int64(len(out)), n.total(len(out)))
		n.Log.Info("compared HashKV", "member", h.MemberID, "result", h.Result, "detail", h.Detail)
		if !n.all && (slow || h.Result == backup.HashEqual) {
			break
		}
	}
	slices.SortFunc(out, func(a, b backup.MemberHash) int {
		return cmp.Compare(slices.Index(order, a.MemberID), slices.Index(order, b.MemberID))
	})
	return out, slow
}

// answer compares a reply with the file. If it cannot be compared, the member is asked
// for the hash of what it holds now: asked for the revision of its last compaction, it
// answers with a hash that it stored before.
func (n *Comparison) answer(ctx context.Context, f *file, rev backup.Revision, r reply) backup.MemberHash {
	n.behind = n.behind || errors.Is(r.err, cluster.ErrBehind)
	h := f.compare(ctx, r)
	if h.Result != backup.HashNotComparable || h.Endpoint == "" {
		return h
	}
	again := n.ask(ctx, n.Source.HashKVNow, rev, func() backup.MemberID { return r.member })
	if now := f.compare(ctx, again); compared(now) {
		return now
	}
	return h
}

// diverged asks all members that are known how far they are, if there is a reason
// to.
func (n *Comparison) diverged(ctx context.Context) []string {
	known := slices.Clone(n.survey.Candidates)
	for _, m := range n.found() {
		if n.survey.Endpoint(m.MemberID) == "" {
			known = append(known, m)
		}
	}
	if !n.behind && !cluster.Doubtful(known) {
		return nil
	}
	return n.Source.Divergence(ctx, known)
}

// Confirm asks one voting member whether it holds the data of a snapshot now: one whose
// turn it is and, if that cannot be compared, the next. It returns the member that does.
// The error says that one does not, or why no member could be compared.
func (c *Comparer) Confirm(ctx context.Context, s *cluster.Survey, m *backup.Manifest) (backup.MemberID, error) {
	n := &Comparison{Comparer: c, asker: c.asker(s, voters(s))}
	var errs []error
	for left := n.ids(); len(left) > 0; {
		r := n.ask(ctx, c.Source.HashKV, m.Revision, n.turn(left))
		now := func() backup.MemberID { return r.member }
		if r.at.Endpoint != "" && !untold(r.err) && (r.err != nil || r.answer.CompactRevision != m.HashKV.CompactRevision) {
			r = n.ask(ctx, c.Source.HashKVNow, m.Revision, now)
		}
		switch {
		case r.err != nil:
			errs = append(errs, fmt.Errorf("member %s: %w", r.member, r.err))
		case r.answer == m.HashKV:
			return r.member, nil
		case r.answer.CompactRevision == m.HashKV.CompactRevision:
			return 0, fmt.Errorf("member %s holds other data at revision %d than snapshot %s", r.member, m.Revision, m.ID)
		default: // and so are the others: none is asked in vain
			return 0, fmt.Errorf("member %s is compacted at revision %d, snapshot %s at %d",
				r.member, r.answer.CompactRevision, m.ID, m.HashKV.CompactRevision)
		}
		if errors.As(r.err, new(*SlowError)) {
			break
		}
		left = slices.DeleteFunc(slices.Clone(left), func(id backup.MemberID) bool { return id == r.member })
	}
	return 0, fmt.Errorf("no voting member confirms snapshot %s: %w", m.ID, errors.Join(errs...))
}

// untold reports whether the member was not asked at all.
func untold(err error) bool {
	return errors.Is(err, errLearner) || errors.As(err, new(*SlowError)) || errors.As(err, new(*LargeLeaderError))
}
