package compare

import (
	"cmp"
	"slices"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/cluster"
)

// Turn is one comparison: which members were found to hold the same data.
type Turn struct {
	// Began is when the snapshot was begun, or when it was confirmed.
	Began time.Time
	// Asked is the member that was asked last; 0: none answered that is not the source.
	Asked backup.MemberID
	// Covered are the members whose data was compared: those that answered, and the
	// source of the snapshot. A source that was compared with itself alone is not.
	Covered []backup.MemberID
}

// Turns are the comparisons of one cluster as far as they are known, the oldest first.
// The order is the one in which they became known: no clock plays a part in it. The
// methods leave the receiver as it is.
type Turns []Turn

// maxTurns is how many are remembered: more than a cluster has members.
const maxTurns = 32

// Learn adds the comparison of a snapshot, unless it is known.
func (t Turns) Learn(c *backup.Capture) Turns {
	// An imported one was compared with nobody, and was no turn.
	if c.Imported != nil || slices.ContainsFunc(t, func(known Turn) bool { return known.Began.Equal(c.StartedAt) }) {
		return t
	}
	turn := Turn{Began: c.StartedAt}
	for _, h := range c.MemberHashes {
		if h.Result == backup.HashEqual && h.MemberID != c.Source.ID {
			turn.Asked, turn.Covered = h.MemberID, append(turn.Covered, h.MemberID)
		}
	}
	if turn.Asked != 0 {
		turn.Covered = append(turn.Covered, c.Source.ID)
	}
	return t.add(turn)
}

// Confirmed adds that a member has confirmed a snapshot.
func (t Turns) Confirmed(by backup.MemberID, at time.Time) Turns {
	return t.add(Turn{Began: at, Asked: by, Covered: []backup.MemberID{by}})
}

func (t Turns) add(turn Turn) Turns {
	out := append(slices.Clone(t), turn)
	return out[max(0, len(out)-maxTurns):]
}

// last returns the number of the last turn that covered the member; 0: none did.
func (t Turns) last(id backup.MemberID) int {
	for n, turn := range slices.Backward(t) {
		if slices.Contains(turn.Covered, id) {
			return n + 1
		}
	}
	return 0
}

// asked returns the member that was asked last, or 0.
func (t Turns) asked() backup.MemberID {
	for _, turn := range slices.Backward(t) {
		if turn.Asked != 0 {
			return turn.Asked
		}
	}
	return 0
}

// next returns whom to ask of those that are left, which must be some: a follower that
// is not the source, then the source, then the leader. Of several it is the one that was
// covered longest ago. Of several of these it is the next one by id, in a circle that
// begins behind the one that was asked last: so each has its turn even where only the
// newest comparison is known.
func (t Turns) next(left []backup.MemberID, source backup.MemberID, leads func(backup.MemberID) bool) backup.MemberID {
	rank := func(id backup.MemberID) int {
		switch {
		case leads(id):
			return 2
		case id == source:
			return 1
		}
		return 0
	}
	behind := uint64(t.asked()) + 1
	return slices.MinFunc(left, func(a, b backup.MemberID) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(t.last(a), t.last(b)),
			cmp.Compare(uint64(a)-behind, uint64(b)-behind)) // below 0 it goes on at the top
	})
}

// Arrange returns the survey with the leader as the first candidate if it is the
// leader's turn. The leader is not asked for HashKV while a follower can answer. But if
// the snapshot is the leader's, an equal answer of a follower proves the leader's data,
// too, and a stream stops no member. So it is the leader's turn if none of the newest
// comparisons covered it, which are one less than there are voters.
func (t Turns) Arrange(s *cluster.Survey) *cluster.Survey {
	fit := func(c cluster.Candidate) bool { return !c.Learner && !c.NoLeader && len(c.Concerns) == 0 }
	leads := func(c cluster.Candidate) bool { return c.Leader && fit(c) }
	leader := slices.IndexFunc(s.Candidates, leads)
	follows := func(c cluster.Candidate) bool { return !c.Leader && fit(c) }
	if leader <= 0 || len(t) == 0 || !slices.ContainsFunc(s.Candidates, follows) {
		return s
	}
	c := s.Candidates[leader]
	recent := len(voters(s)) - 1
	if last := t.last(c.MemberID); last > len(t)-recent && last > 0 {
		return s
	}
	out := *s
	out.Candidates = slices.Concat([]cluster.Candidate{c}, s.Candidates[:leader], s.Candidates[leader+1:])
	return &out
}

// voters returns the voting members by the cluster's own list, or those that answered
// where there is no list.
func voters(s *cluster.Survey) []backup.Member {
	if len(s.Members) > 0 {
		return voting(s.Members)
	}
	var out []backup.Member
	for _, c := range s.Candidates {
		if !c.Learner {
			out = append(out, backup.Member{ID: c.MemberID})
		}
	}
	return out
}

func voting(members []backup.Member) []backup.Member {
	return slices.DeleteFunc(slices.Clone(members), func(m backup.Member) bool { return m.Learner })
}
