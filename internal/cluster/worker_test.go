package cluster_test

import (
	"testing"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/cluster"
	"github.com/etcd-backupd/backupd/internal/testserver"
)

func TestWorker(t *testing.T) {
	follower := func(id backup.MemberID) cluster.Candidate {
		return cluster.Candidate{MemberID: id, RaftTerm: 2}
	}
	leader := func(id backup.MemberID) cluster.Candidate {
		return cluster.Candidate{MemberID: id, RaftTerm: 2, Leader: true}
	}
	but := func(c cluster.Candidate, change func(*cluster.Candidate)) cluster.Candidate {
		change(&c)
		return c
	}
	concern := func(c *cluster.Candidate) { c.Concerns = []string{"its NOSPACE alarm is active"} }
	learner := func(c *cluster.Candidate) { c.Learner = true }
	alone := func(c *cluster.Candidate) { c.NoLeader = true }
	cutOff := func(c *cluster.Candidate) { c.RaftTerm = 1 }

	for name, c := range map[string]struct {
		all  []cluster.Candidate
		want backup.MemberID
	}{
		"Nobody":         {nil, 0},
		"LowestFollower": {[]cluster.Candidate{follower(7), follower(5), leader(1)}, 5},
		"AnyOrder":       {[]cluster.Candidate{leader(1), follower(5), follower(7)}, 5},
		"LargeIDs": {
			[]cluster.Candidate{follower(0xf000000000000000), follower(0x8000000000000001), leader(1)},
			0x8000000000000001,
		},
		"FollowerInTrouble": {[]cluster.Candidate{but(follower(2), concern), follower(5), leader(1)}, 5},
		"AllInTrouble":      {[]cluster.Candidate{but(follower(2), concern), but(follower(3), concern), leader(4)}, 4},
		"LeaderToo":         {[]cluster.Candidate{but(follower(2), concern), but(leader(4), concern)}, 4},
		"LeaderAlone":       {[]cluster.Candidate{leader(9)}, 9},
		"Learner":           {[]cluster.Candidate{but(follower(2), learner), leader(4)}, 4},
		"LearnerAlone":      {[]cluster.Candidate{but(follower(2), learner)}, 0},
		"NoQuorum":          {[]cluster.Candidate{but(follower(2), alone), but(follower(3), alone)}, 0},
		"TwoLeaders":        {[]cluster.Candidate{but(leader(2), cutOff), leader(3)}, 3},
		"TwoLeadersOneTerm": {[]cluster.Candidate{leader(3), leader(2)}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			if got := cluster.Worker(&cluster.Survey{Candidates: c.all}); got != c.want {
				t.Errorf("got member %s, want %s", got, c.want)
			}
		})
	}
}

// TestWorker_Agree: three daemons, each with its own connections and its own
// order of endpoints, name the same member, and the same other one when that
// dies.
func TestWorker_Agree(t *testing.T) {
	real := testserver.StartCluster(t, testserver.Options{Size: 3})
	urls := real.Endpoints()
	var daemons []*cluster.Cluster
	for i := range urls {
		conf := cluster.Config{Endpoints: append(urls[i:len(urls):len(urls)], urls[:i]...)}
		daemons = append(daemons, testserver.Connect(t, conf))
	}
	agreed := func(members int) backup.MemberID {
		t.Helper()
		var worker backup.MemberID
		testserver.Eventually(t, "all name one worker", func() bool {
			worker = 0
			for i, d := range daemons {
				s, err := d.Survey(t.Context())
				if err != nil || len(s.Candidates) != members {
					return false
				}
				w := cluster.Worker(s)
				if i > 0 && w != worker {
					return false
				}
				worker = w
			}
			return worker != 0
		})
		return worker
	}
	first := agreed(3)
	s := survey(t, daemons[0])
	for _, c := range s.Candidates {
		if !c.Leader && c.MemberID < first {
			t.Errorf("got member %s, but follower %s has a lower id", first, c.MemberID)
		}
	}
	for i, url := range urls {
		if s.Endpoint(first) == url {
			real.Members[i].Kill()
		}
	}
	if second := agreed(2); second == first {
		t.Errorf("still %s, which was killed", second)
	}
}
