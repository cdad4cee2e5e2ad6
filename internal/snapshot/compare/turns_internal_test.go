package compare

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/cluster"
)

// model is a cluster of healthy members with ids from 1 on, of which one leads.
type model struct {
	size   int
	leader backup.MemberID
	// known is how many of the newest snapshots a process knows.
	known int
	took  []*backup.Capture // the oldest first
}

func (m *model) ids() []backup.MemberID {
	var out []backup.MemberID
	for id := range backup.MemberID(m.size) {
		out = append(out, id+1)
	}
	return out
}

func (m *model) leads(id backup.MemberID) bool { return id == m.leader }

func (m *model) survey() *cluster.Survey {
	s := &cluster.Survey{}
	for _, id := range m.ids() {
		s.Members = append(s.Members, backup.Member{ID: id})
		if !m.leads(id) {
			s.Candidates = append(s.Candidates, cluster.Candidate{MemberID: id})
		}
	}
	s.Candidates = append(s.Candidates, cluster.Candidate{MemberID: m.leader, Leader: true})
	return s
}

// turns are those that a process knows that has just started.
func (m *model) turns() Turns {
	var out Turns
	for _, c := range m.took[max(0, len(m.took)-m.known):] {
		out = out.Learn(c)
	}
	return out
}

// take takes a snapshot, for which a member may be down, and returns whom it compared
// with one another.
func (m *model) take(turns Turns, down backup.MemberID) (source, asked backup.MemberID) {
	s := turns.Arrange(m.survey())
	for _, c := range s.Candidates {
		if c.MemberID != down {
			source = c.MemberID
			break
		}
	}
	left := slices.DeleteFunc(m.ids(), func(id backup.MemberID) bool { return id == down })
	asked = turns.next(left, source, m.leads)
	m.took = append(m.took, &backup.Capture{
		StartedAt: time.Unix(int64(len(m.took)), 0), Source: backup.Member{ID: source},
		MemberHashes: []backup.MemberHash{{MemberID: asked, Result: backup.HashEqual}},
	})
	return source, asked
}

// TestTurns: every member is compared with another one within as many snapshots as there
// are voters, also where a process knows no more than the newest one. The leader is not
// asked.
func TestTurns(t *testing.T) {
	for size := 2; size <= 9; size++ {
		for _, known := range []int{1, 2, 3, 100} {
			for leader := range backup.MemberID(size) {
				m := &model{size: size, leader: leader + 1, known: known}
				t.Run(fmt.Sprintf("%d of %d leads, %d known", m.leader, size, known), func(t *testing.T) { m.test(t) })
			}
		}
	}
}

func (m *model) test(t *testing.T) {
	last := map[backup.MemberID]int{}
	for n := range 4 * m.size {
		source, asked := m.take(m.turns(), 0)
		if m.leads(asked) {
			t.Fatalf("snapshot %d: the leader was asked", n)
		}
		if source != asked {
			last[source], last[asked] = n+1, n+1
		}
		for _, id := range m.ids() {
			if n+1-last[id] >= m.size {
				t.Fatalf("snapshot %d: member %d was not compared for %d snapshots", n, id, n+1-last[id])
			}
		}
	}
	of := map[backup.MemberID]int{}
	for _, c := range m.took {
		of[c.Source.ID]++
	}
	if m.known == 100 && of[m.leader] > 4+1 { // no more often than is needed
		t.Errorf("%d of %d snapshots are of the leader", of[m.leader], len(m.took))
	}
}

// TestTurns_Down: a member that is down costs the others no turn.
func TestTurns_Down(t *testing.T) {
	for _, known := range []int{1, 100} {
		m := &model{size: 5, leader: 2, known: known}
		last := map[backup.MemberID]int{}
		for n := range 20 {
			source, asked := m.take(m.turns(), 4)
			last[source], last[asked] = n+1, n+1
			for _, id := range []backup.MemberID{1, 2, 3, 5} {
				if n+1-last[id] >= 5 || m.leads(asked) {
					t.Fatalf("%d known, snapshot %d: asked %d, member %d was last compared in %d", known, n, asked, id, last[id])
				}
			}
			// If it were back it would be the next one.
			if next := m.turns().next(m.ids(), 1, m.leads); known == 100 && n > 4 && next != 4 {
				t.Errorf("after snapshot %d: the next one is %d, and not the one that was compared longest ago", n, next)
			}
		}
	}
}

// TestTurns_Skipped: slots that are skipped ask the followers in turn, and the leader is
// the source of the snapshot that comes after them.
func TestTurns_Skipped(t *testing.T) {
	m := &model{size: 5, leader: 3, known: 100}
	m.take(nil, 0)
	turns := m.turns()
	seen := map[backup.MemberID]int{}
	for n := range 8 {
		id := turns.next(m.ids(), 0, m.leads)
		seen[id]++
		turns = turns.Confirmed(id, time.Unix(int64(100+n), 0))
	}
	if len(seen) != 4 || seen[3] != 0 || seen[1] != 2 {
		t.Errorf("asked %v", seen)
	}
	if s := turns.Arrange(m.survey()); s.Candidates[0].MemberID != 3 {
		t.Errorf("the next snapshot is of member %d", s.Candidates[0].MemberID)
	}
}

// TestTurns_Arrange: the leader of a cluster in trouble streams nothing that it would not
// have streamed before.
func TestTurns_Arrange(t *testing.T) {
	known := Turns{{Asked: 1, Covered: []backup.MemberID{1, 2}}}
	known = append(known, known[0])
	for name, c := range map[string]struct {
		turns  Turns
		change func(*cluster.Survey)
		want   backup.MemberID
	}{
		"Due":     {known, func(*cluster.Survey) {}, 3},
		"Nothing": {nil, func(*cluster.Survey) {}, 1},
		"JustNow": {append(known, Turn{Covered: []backup.MemberID{3, 1}}), func(*cluster.Survey) {}, 1},
		"Concern": {known, func(s *cluster.Survey) { s.Candidates[2].Concerns = []string{"it lags"} }, 1},
		"NoFollower": {known, func(s *cluster.Survey) {
			s.Candidates[0].Concerns, s.Candidates[1].NoLeader = []string{"x"}, true
		}, 1},
		"NoList": {known, func(s *cluster.Survey) { s.Members = nil }, 3},
		"Large":  {known, func(s *cluster.Survey) { s.Members = append(s.Members, make([]backup.Member, 4)...) }, 3},
	} {
		m := &model{size: 3, leader: 3}
		s := m.survey()
		c.change(s)
		if got := c.turns.Arrange(s).Candidates; got[0].MemberID != c.want || len(got) != 3 {
			t.Errorf("%s: got %+v", name, got)
		}
	}
}

// TestTurns_Learn: what is known is not learned again, and a source that was compared with
// itself alone was not compared.
func TestTurns_Learn(t *testing.T) {
	c := &backup.Capture{StartedAt: time.Unix(1, 0), Source: backup.Member{ID: 1}, MemberHashes: []backup.MemberHash{
		{MemberID: 2, Result: backup.HashUnavailable}, {MemberID: 1, Result: backup.HashEqual}}}
	turns := Turns(nil).Learn(c).Learn(c)
	if len(turns) != 1 || turns.last(1) != 0 || turns.asked() != 0 {
		t.Errorf("got %+v", turns)
	}
	for n := range 2 * maxTurns {
		turns = turns.Confirmed(2, time.Unix(int64(n), 0))
	}
	if len(turns) != maxTurns || turns.last(2) != maxTurns {
		t.Errorf("%d turns", len(turns))
	}
}
