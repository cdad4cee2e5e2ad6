package schedule

import (
	"cmp"
	"slices"
	"time"
)

// Rooms is how many tries may be at work without a turn. Each has connections open, so
// there must be a bound.
const Rooms = 16

const (
	// spare is how many of the rooms are kept for jobs that do not fail: a room may be
	// in use until a dead address has not answered for as long as it may.
	spare = Rooms / 4
	// yields is how often a run gives way to others for each time that its job has
	// failed in a row.
	yields = 100
	// idle is how long nothing may move in a run that has a turn, before others may
	// have the turn.
	idle = 15 * time.Second
)

// turns decides which tries may begin, and which of them may do what is expensive.
// A try enters a room first, if none of its group is at work. There it does what is
// cheap. For the rest it takes a turn: at most limit have one at once, and at most
// limit of a lane. A turn in which nothing moves is lent, until something moves
// again. Jobs that have failed come last; apart from that, whoever has waited
// longest comes first. It is guarded by the scheduler's mutex.
type turns struct {
	limit  int
	groups map[string]bool // that are at work
	lanes  map[string]int  // turns that were granted, the lent ones too
	queue  []*turn         // of those that wait, outside or in their rooms
	joined int             // counts those that came
	inside int             // tries in rooms
	failed int             // of them, those of jobs that have failed
	active int             // turns in which something moves
}

// place is where a try is.
type place int

const (
	outside place = iota
	room
	asking // in its room, for a turn
	holding
	lending
	away // it has ended or was withdrawn
)

// turn is the way of one try.
type turn struct {
	group, lane string
	failures    int // of its job in a row, or 1 before its first run; 0 if somebody asked
	rank        int // the lower, the sooner
	number      int // in the order in which they came
	place       place
	removed     bool          // its job; it gets no turn any more
	entered     chan struct{} // closed when it is in its room, or was withdrawn
	granted     chan struct{} // closed when it has a turn, or was withdrawn
}

func newTurns(limit int) turns {
	return turns{limit: max(1, limit), groups: map[string]bool{}, lanes: map[string]int{}}
}

// join queues a try for its room.
func (ts *turns) join(group, lane string, failures int) *turn {
	t := &turn{
		group: group, lane: lane, failures: failures, rank: yields * failures, number: ts.joined,
		entered: make(chan struct{}), granted: make(chan struct{}),
	}
	ts.joined++
	ts.queue = append(ts.queue, t)
	ts.deal()
	return t
}

// ask queues a try that is in its room for a turn.
func (ts *turns) ask(t *turn) {
	if t.place != room {
		return
	}
	t.place = asking
	if t.removed {
		ts.done(t)
		return
	}
	ts.queue = append(ts.queue, t)
	ts.deal()
}

// deal lets everybody go on who may now.
func (ts *turns) deal() {
	order := slices.Clone(ts.queue)
	slices.SortFunc(order, func(a, b *turn) int { return cmp.Or(a.rank-b.rank, a.number-b.number) })
	for _, t := range order {
		switch {
		case t.place == outside && ts.mayEnter(t):
			ts.enter(t)
		case t.place == asking && ts.active < ts.limit && (t.lane == "" || ts.lanes[t.lane] < ts.limit):
			ts.grant(t)
		default:
			continue
		}
		ts.advance(t)
	}
}

// advance takes a try out of the queue. Those that came before it have given way once.
func (ts *turns) advance(t *turn) {
	ts.queue = slices.DeleteFunc(ts.queue, func(other *turn) bool { return other == t })
	for _, other := range ts.queue {
		if other.number < t.number {
			other.rank = max(0, other.rank-1)
		}
	}
}

func (ts *turns) mayEnter(t *turn) bool {
	return ts.inside < Rooms && (t.group == "" || !ts.groups[t.group]) &&
		(t.failures == 0 || ts.failed < Rooms-spare)
}

func (ts *turns) enter(t *turn) {
	t.place = room
	ts.count(t, 1)
	if t.group != "" {
		ts.groups[t.group] = true
	}
	close(t.entered)
}

// count counts a try in its room.
func (ts *turns) count(t *turn, by int) {
	ts.inside += by
	if t.failures > 0 {
		ts.failed += by
	}
}

func (ts *turns) grant(t *turn) {
	t.place = holding
	ts.count(t, -1)
	ts.active++
	ts.lanes[t.lane]++
	close(t.granted)
}

// lend lets others have a turn in which nothing moves.
func (ts *turns) lend(t *turn) {
	if t.place == holding {
		t.place = lending
		ts.active--
		ts.deal()
	}
}

// resume ends the loan, though there may be one more than limit then: a run whose
// store answers again cannot be held up.
func (ts *turns) resume(t *turn) {
	if t.place == lending {
		t.place = holding
		ts.active++
	}
}

// remove withdraws a try whose job was removed, unless it has a turn.
func (ts *turns) remove(t *turn) {
	t.removed = true
	if t.place == outside || t.place == asking {
		ts.done(t)
	}
}

// done ends a try, or withdraws it before.
func (ts *turns) done(t *turn) {
	was := t.place
	t.place = away
	ts.queue = slices.DeleteFunc(ts.queue, func(other *turn) bool { return other == t })
	switch was {
	case away:
		return
	case outside:
		close(t.entered)
		return
	case asking:
		close(t.granted)
		ts.count(t, -1)
	case room:
		ts.count(t, -1)
	case holding, lending:
		if was == holding {
			ts.active--
		}
		if ts.lanes[t.lane]--; ts.lanes[t.lane] == 0 {
			delete(ts.lanes, t.lane)
		}
	}
	delete(ts.groups, t.group)
	ts.deal()
}
