package cluster

import (
	"cmp"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// Worker returns the member whose daemon takes the snapshot, if each member has a
// daemon beside it: the healthy voting follower with the lowest id, else the
// leader, else 0. Daemons that got the same answers agree without talking to each
// other. If the answers differ for a moment, two may work, or none.
func Worker(s *Survey) backup.MemberID {
	var worker, leader *Candidate
	for i := range s.Candidates {
		c := &s.Candidates[i]
		if c.healthyFollower() && (worker == nil || c.MemberID < worker.MemberID) {
			worker = c
		}
		if c.Leader && (leader == nil || newerLeader(c, leader) > 0) {
			leader = c
		}
	}
	switch {
	case worker != nil:
		return worker.MemberID
	case leader != nil:
		return leader.MemberID
	}
	return 0
}

func (c *Candidate) healthyFollower() bool {
	return !c.Leader && !c.Learner && !c.NoLeader && len(c.Concerns) == 0
}

// newerLeader orders members that both think they lead: one of them was cut off
// and has not noticed yet.
func newerLeader(a, b *Candidate) int {
	return cmp.Or(cmp.Compare(a.RaftTerm, b.RaftTerm), cmp.Compare(b.MemberID, a.MemberID))
}
