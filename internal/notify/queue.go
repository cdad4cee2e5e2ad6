package notify

import (
	"slices"
	"sync"
	"time"
)

// queue holds the events that wait for one target.
type queue struct {
	target *Target
	// The mutex of the notifier guards both.
	desk  *desk
	later *time.Timer // until armed events are delivered; nil: none runs

	mu     sync.Mutex
	events []Event
	closed bool
	news   chan struct{} // an event was added, or the queue was closed
}

func newQueue(t *Target) *queue {
	return &queue{target: t, desk: newDesk(), news: make(chan struct{}, 1)}
}

// push adds e. If the queue is full it drops and returns the oldest event that is
// no trouble, or the oldest of all.
func (q *queue) push(e Event) (dropped []Event) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.closed {
		return []Event{e}
	}
	q.events = append(q.events, e)
	if len(q.events) > queueLength {
		i := max(0, slices.IndexFunc(q.events, func(e Event) bool { return !e.Kind.trouble() }))
		dropped = append(dropped, q.events[i])
		q.events = slices.Delete(q.events, i, i+1)
	}
	q.signal()
	return dropped
}

// pop waits for the next event. It returns false if the queue is closed and empty.
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

// close makes the queue refuse further events.
func (q *queue) close() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	q.signal()
}

// drain removes and returns all events.
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
