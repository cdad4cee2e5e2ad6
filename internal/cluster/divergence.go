package cluster

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
)

const (
	// conflictsWanted is how many readings must show the same contradiction.
	conflictsWanted = 3
	divergenceTries = 8
	divergencePause = 200 * time.Millisecond
)

// Doubtful reports whether two members answered as only members do whose histories
// differ, or healthy ones whose answers were overtaken by a write: the one with the
// older revision has applied as many raft entries as the other. The answers at a proxy
// do not count: each may be another member's.
func Doubtful(members []Candidate) bool {
	members = direct(members)
	for _, a := range members {
		for _, b := range members {
			if a.Revision < b.Revision && a.AppliedIndex >= b.AppliedIndex {
				return true
			}
		}
	}
	return false
}

func direct(members []Candidate) []Candidate {
	return slices.DeleteFunc(slices.Clone(members), func(c Candidate) bool { return c.Proxy })
}

// Divergence asks members again how far they are, and describes those that cannot
// be of one history: members that have applied the same raft entries are at the
// same revision. It returns nil if nothing is proved within about two seconds.
func (c *Cluster) Divergence(ctx context.Context, members []Candidate) []string {
	members = direct(members)
	w := &witness{pairs: map[[2]int]*pairing{}}
	for a := range members {
		w.newest = max(w.newest, members[a].AppliedIndex)
		for b := range a {
			w.pairs[[2]int{b, a}] = &pairing{}
		}
	}
	for range divergenceTries {
		w.add(c.surveyor.still(ctx, members))
		if !w.open() {
			break
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(divergencePause):
		}
	}
	return w.proved(members)
}

// reading is the revision of a member at one raft applied index. The zero value is
// none.
type reading struct {
	index    uint64
	revision backup.Revision
}

// still reads each member twice. An answer to Status is not atomic: its revision
// is older than its index. If the index did not move between two answers, the
// revision of the second is the one at this index.
func (c *surveyor) still(ctx context.Context, members []Candidate) []reading {
	out := make([]reading, len(members))
	var wg sync.WaitGroup
	for i, m := range members {
		wg.Go(func() {
			first, second := c.ask(ctx, m.Endpoint), c.ask(ctx, m.Endpoint)
			if first.err == nil && second.err == nil &&
				first.status.RaftAppliedIndex == second.status.RaftAppliedIndex {
				out[i] = reading{second.status.RaftAppliedIndex, backup.Revision(second.status.Header.GetRevision())}
			}
		})
	}
	wg.Wait()
	return out
}

// witness collects what readings tell of each pair of members.
type witness struct {
	newest uint64 // the newest raft applied index that was known before
	pairs  map[[2]int]*pairing
}

type pairing struct {
	agreed    bool
	conflicts int
	a, b      reading // of the last conflict
}

// add counts one reading of each member. A single conflict proves nothing: between
// the moment in which a member changes its revision and the one in which it counts
// the raft entry, it may be held up. A member that is behind all others proves
// nothing either: one that has just received a whole database counts its entries
// only with the next one.
func (w *witness) add(readings []reading) {
	for of, p := range w.pairs {
		a, b := readings[of[0]], readings[of[1]]
		switch {
		case a.index == 0 || a.index != b.index || a.index < w.newest:
		case a.revision == b.revision:
			p.agreed = true
		default:
			p.conflicts, p.a, p.b = p.conflicts+1, a, b
		}
	}
}

func (p *pairing) decided() bool { return p.agreed || p.conflicts >= conflictsWanted }

func (w *witness) open() bool {
	for _, p := range w.pairs {
		if !p.decided() {
			return true
		}
	}
	return false
}

func (w *witness) proved(members []Candidate) []string {
	var out []string
	for i := range members {
		for j := range members {
			p := w.pairs[[2]int{i, j}]
			if p == nil || p.agreed || p.conflicts < conflictsWanted {
				continue
			}
			out = append(out, fmt.Sprintf("members %s and %s have diverged: at raft index %d one is at revision %d, "+
				"the other at %d", members[i].MemberID, members[j].MemberID, p.a.index, p.a.revision, p.b.revision))
		}
	}
	return out
}
