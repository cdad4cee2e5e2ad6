package schedule

import "slices"

// turns decides which jobs may run: at most limit at once, one of a group, and
// the one that has waited longest first. It is guarded by the scheduler's mutex.
type turns struct {
	limit   int
	running int
	groups  map[string]bool
	queue   []*turn
}

type turn struct {
	group   string
	granted bool
	ready   chan struct{} // closed when the turn is granted or given up
}

// join queues a run for its turn.
func (ts *turns) join(group string) *turn {
	t := &turn{group: group, ready: make(chan struct{})}
	ts.queue = append(ts.queue, t)
	ts.deal()
	return t
}

// deal grants every turn that can be granted now.
func (ts *turns) deal() {
	ts.queue = slices.DeleteFunc(ts.queue, func(t *turn) bool {
		if ts.running >= ts.limit || t.group != "" && ts.groups[t.group] {
			return false
		}
		ts.running++
		if t.group != "" {
			ts.groups[t.group] = true
		}
		t.granted = true
		close(t.ready)
		return true
	})
}

// done ends a turn that was granted.
func (ts *turns) done(t *turn) {
	ts.running--
	delete(ts.groups, t.group)
	ts.deal()
}

// leave withdraws a run whose turn was not granted.
func (ts *turns) leave(t *turn) {
	if i := slices.Index(ts.queue, t); i >= 0 {
		ts.queue = slices.Delete(ts.queue, i, i+1)
		close(t.ready)
	}
}
