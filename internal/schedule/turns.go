package schedule

import "slices"

// turns deals out who may run: at most limit at once, one of a group, and who
// has waited longest first. It is guarded by the scheduler's mutex.
type turns struct {
	limit   int
	running int
	groups  map[string]bool
	queue   []*turn
}

type turn struct {
	group   string
	granted bool
	ready   chan struct{} // closed when granted, or when nothing comes any more
}

// join begins to wait.
func (ts *turns) join(group string) *turn {
	t := &turn{group: group, ready: make(chan struct{})}
	ts.queue = append(ts.queue, t)
	ts.deal()
	return t
}

// deal lets run who can.
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

// leave ends the waiting for one that was not.
func (ts *turns) leave(t *turn) {
	if i := slices.Index(ts.queue, t); i >= 0 {
		ts.queue = slices.Delete(ts.queue, i, i+1)
		close(t.ready)
	}
}
