package cluster_test

import (
	"testing"
	"time"

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
			if got := cluster.Worker(&cluster.Survey{Candidates: c.all}, 0); got != c.want {
				t.Errorf("got member %s, want %s", got, c.want)
			}
		})
	}
}

// TestWorker_Turns: the followers come in the order of their ids, then the leader, and
// then the first again. Whoever is not healthy has no turn.
func TestWorker_Turns(t *testing.T) {
	const hour = time.Hour
	s := &cluster.Survey{Candidates: []cluster.Candidate{
		{MemberID: 9}, {MemberID: 1, Leader: true}, {MemberID: 2, NoLeader: true}, {MemberID: 5},
		{MemberID: 3, Learner: true},
		{MemberID: 4, Concerns: []string{"its NOSPACE alarm is active"}},
	}}
	for age, want := range map[time.Duration]backup.MemberID{
		-hour: 5, 0: 5, hour: 5, 90*time.Minute - 1: 5, 90 * time.Minute: 9, 150*time.Minute - 1: 9, 150 * time.Minute: 1,
		200 * time.Minute: 1, 210 * time.Minute: 5, 270 * time.Minute: 9, 100000 * hour: 5,
	} {
		turn, ago := cluster.Turn(age, hour)
		if got := cluster.Worker(s, turn); got != want {
			t.Errorf("%v: got member %s, want %s", age, got, want)
		}
		if begun, _ := cluster.Turn(age-ago, hour); turn > 0 && (begun != turn || ago < 0 || ago >= hour) {
			t.Errorf("%v: turn %d began %v ago", age, turn, ago)
		}
		if before, _ := cluster.Turn(age-ago-1, hour); turn > 0 && before != turn-1 {
			t.Errorf("%v: before turn %d came %d", age, turn, before)
		}
	}
	if got := cluster.Worker(&cluster.Survey{}, 7); got != 0 {
		t.Errorf("got member %s of none", got)
	}
	if turn, _ := cluster.Turn(hour, 0); turn != 0 {
		t.Errorf("without a schedule: turn %d", turn)
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
				w := cluster.Worker(s, 0)
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
