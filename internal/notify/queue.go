package notify

import (
	"slices"
	"sync"
)

// queue holds what one target is still to be told.
type queue struct {
	target *Target

	mu     sync.Mutex
	events []Event
	closed bool
	news   chan struct{} // something came, or the queue was closed
}

func newQueue(t *Target) *queue { return &queue{target: t, news: make(chan struct{}, 1)} }

// push adds e and returns what had to go for it: the oldest that is no
// failure, if there is one.
func (q *queue) push(e Event) (dropped []Event) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return []Event{e}
	}
	q.events = append(q.events, e)
	if len(q.events) > queueLength {
		i := max(0, slices.IndexFunc(q.events, func(e Event) bool { return e.Kind != Failed }))
		dropped = append(dropped, q.events[i])
		q.events = slices.Delete(q.events, i, i+1)
	}
	q.signal()
	return dropped
}

// pop waits for the next event. It returns false when none comes any more.
func (q *queue) pop() (Event, bool) {
	for {
		q.mu.Lock()
		if len(q.events) > 0 {
			e := q.events[0]
			q.events = slices.Delete(q.events, 0, 1)
			q.mu.Unlock()
			return e, true
		}
		closed := q.closed
		q.mu.Unlock()
		if closed {
			return Event{}, false
		}
		<-q.news
	}
}

// close lets nothing more in.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.signal()
}

// drain takes out all that is left.
func (q *queue) drain() []Event {
	q.mu.Lock()
	defer q.mu.Unlock()
	out := q.events
	q.events = nil
	return out
}

func (q *queue) signal() {
	select {
	case q.news <- struct{}{}:
	default:
	}
}
