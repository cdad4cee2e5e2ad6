package cluster

import (
	"cmp"
	"slices"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// Worker returns the member whose daemon takes the snapshot, if each member has a
// daemon beside it: the healthy voting follower with the lowest id, or else the leader.
// If turns were missed, see [Turn], it is the next by id, and the leader last; 0: there is
// none. Daemons that got the same answers agree without talking to each other. If the
// answers differ for a moment, two may work, or none.
func Worker(s *Survey, turn int) backup.MemberID {
	var order []backup.MemberID
	var leader *Candidate
	for i := range s.Candidates {
		c := &s.Candidates[i]
		if c.Proxy {
			continue
		}
		if c.healthyFollower() {
			order = append(order, c.MemberID)
		}
		if c.Leader && (leader == nil || newerLeader(c, leader) > 0) {
			leader = c
		}
	}
	slices.Sort(order)
	if leader != nil {
		order = append(order, leader.MemberID)
	}
	if len(order) == 0 {
		return 0
	}
	return order[turn%len(order)]
}

// Turn returns how many daemons have missed their turn, if the newest snapshot is that
// old, and how long ago the last of these turns ended. A daemon misses its turn if
// nobody has taken a snapshot in one and a half intervals of the schedule, and each
// further one in one interval.
func Turn(age, interval time.Duration) (missed int, ago time.Duration) {
	over := age - interval*3/2
	if over < 0 || interval <= 0 {
		return 0, 0
	}
	return 1 + int(over/interval), over % interval
}

func (c *Candidate) healthyFollower() bool {
	return !c.Leader && !c.Learner && !c.NoLeader && len(c.Concerns) == 0
}

// newerLeader orders members that both think they lead: one of them was cut off
// and has not noticed yet.
func newerLeader(a, b *Candidate) int {
	return cmp.Or(cmp.Compare(a.RaftTerm, b.RaftTerm), cmp.Compare(b.MemberID, a.MemberID))
}
