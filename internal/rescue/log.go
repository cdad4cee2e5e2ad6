package rescue

import (
	"slices"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// position is a place in a log. Two logs of one cluster that have the same entry have the same
// entries before it: that is what raft is for.
type position struct {
	Index uint64 `json:"index"`
	Term  uint64 `json:"term"`
}

// raftLog is what a WAL says, without its entries.
type raftLog struct {
	// Missing is a WAL that is not there at all.
	Missing   bool            `json:"missing,omitempty"`
	ClusterID backup.MemberID `json:"clusterID"`
	MemberID  backup.MemberID `json:"memberID"`
	// Spans are the entries: each begins at its index and has one term. Last is the
	// newest entry, 0 without entries.
	Spans []position `json:"spans"`
	Last  uint64     `json:"last"`
	// Commit is the newest entry that it says is committed. It may have less.
	Commit uint64 `json:"commit"`
	// Term is the newest one in which the member has voted or followed.
	Term   uint64     `json:"term"`
	Marks  []position `json:"marks"` // of snapshots
	Damage *damage    `json:"damage,omitempty"`
	// Before is the term of the newest entry that the database has, 0 if the log lacks it.
	Before uint64 `json:"before,omitempty"`
	// Voters are the members by the newest mark up to there, Named those that entries add or
	// change, and Joined those of them whose entries come after it.
	Voters []backup.MemberID `json:"voters,omitempty"`
	Named  []backup.MemberID `json:"named,omitempty"`
	Joined []backup.MemberID `json:"joined,omitempty"`
}

// add appends an entry, or puts it in the place of those from its index on.
func (l *raftLog) add(index, term uint64) {
	l.Spans = slices.DeleteFunc(l.Spans, func(s position) bool { return s.Index >= index })
	if n := len(l.Spans); n == 0 || l.Spans[n-1].Term != term {
		l.Spans = append(l.Spans, position{index, term})
	}
	l.Last = index
}

// first is the oldest entry, 0 without entries.
func (l *raftLog) first() uint64 {
	if len(l.Spans) == 0 {
		return 0
	}
	return l.Spans[0].Index
}

// term returns the term of an entry, and 0 if it is not there.
func (l *raftLog) term(index uint64) uint64 {
	if index > l.Last {
		return 0
	}
	for _, s := range slices.Backward(l.Spans) {
		if s.Index <= index {
			return s.Term
		}
	}
	return 0
}

// known is a log with the database beside it, which has everything up to its index.
type known struct {
	*raftLog
	database position
}

// at returns the term that an entry has, if that can be known, else 0.
func (k known) at(index uint64) uint64 {
	if index == k.database.Index {
		return k.database.Term
	}
	return k.term(index)
}

// committed is the newest entry that this member shows as committed, and has.
func (k known) committed() uint64 {
	return max(min(k.Commit, k.Last), k.database.Index)
}

// end is the newest entry that it has, committed or not.
func (k known) end() uint64 { return max(k.Last, k.database.Index) }

// commonEnd returns the newest entry up to limit that both have, 0 if none can be seen.
func commonEnd(a, b known, limit uint64) uint64 {
	for i := min(limit, a.end(), b.end()); i > 0; i-- {
		ta, tb := a.at(i), b.at(i)
		if ta == 0 || tb == 0 {
			return 0
		}
		if ta == tb {
			return i
		}
	}
	return 0
}

// reach returns up to which entry each log can be taken: as far as any of them shows that its
// entries are committed, and as it has them without a gap after its database.
func reach(all []known) []uint64 {
	out := make([]uint64, len(all))
	for i, k := range all {
		out[i] = k.committed()
		for _, other := range all {
			out[i] = max(out[i], commonEnd(k, other, other.committed()))
		}
		if from := k.first(); out[i] > k.database.Index && (from == 0 || from > k.database.Index+1) {
			out[i] = k.database.Index // what comes next is not there
		}
	}
	return out
}

// newestCommit is the newest entry that any of them says is committed, whether or not one of
// them still has it.
func newestCommit(all []known) (newest uint64) {
	for _, k := range all {
		newest = max(newest, k.Commit, k.database.Index)
		if k.Damage != nil {
			newest = max(newest, k.Damage.Committed)
		}
	}
	return newest
}

// tail returns which log has the entries after what is known to be committed that raft would
// choose, and how many: those of the newest term, and of these the most. Without any it is -1.
func tail(all []known, reached []uint64) (which int, count uint64) {
	newest := newestCommit(all)
	which = -1
	for i, k := range all {
		if reached[i] != newest || k.Last <= newest {
			continue // it lacks something that is committed, or has no more
		}
		if which >= 0 {
			best := all[which]
			a, b := k.term(k.Last), best.term(best.Last)
			if a < b || a == b && k.Last <= best.Last {
				continue
			}
		}
		which, count = i, k.Last-newest
	}
	return which, count
}
