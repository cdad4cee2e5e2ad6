package notify

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
)

const (
	queueLength = 100
	// retryFor is how long a delivery is retried.
	retryFor = 5 * time.Minute
	// againAfter is when a delivery that was given up is begun again.
	againAfter = 15 * time.Minute
)

// Notifier delivers events. Its methods may be called concurrently.
type Notifier struct {
	// Results, if set before Run, is called with the result of each delivery: the
	// kind of the receiver (webhook, slack, healthchecks, command), and sent or
	// dropped. It may be called concurrently.
	Results func(kind, result string)

	// Delivered, if set before Run, is called when an event was delivered. It may be
	// called concurrently.
	Delivered func(Event)

	log *slog.Logger
	wg  sync.WaitGroup

	mu      sync.Mutex      // guards what follows, and the desks of the queues
	ctx     context.Context // of deliveries; nil before Run
	closed  bool
	queues  []*queue
	tracker tracker
}

// New returns a notifier for targets. Events are kept until Run.
func New(targets []*Target, log *slog.Logger) *Notifier {
	n := &Notifier{log: log, tracker: tracker{}}
	n.Set(targets)
	return n
}

// Set replaces the targets. Waiting events of old targets are still delivered. A
// target that is new, or to which something was not delivered, is told of what fails
// already.
func (n *Notifier) Set(targets []*Target) {
	n.mu.Lock()
	defer n.mu.Unlock()
	before := n.queues
	n.queues = nil
	for _, t := range targets {
		i := slices.IndexFunc(before, func(q *queue) bool { return q.target.id == t.id })
		if i < 0 {
			n.add(t)
			continue
		}
		n.queues = append(n.queues, before[i])
		n.pushAll(before[i], before[i].desk.again())
		before = slices.Delete(slices.Clone(before), i, i+1)
	}
	for _, q := range before {
		q.close()
		if n.ctx == nil {
			n.dropped(q, q.drain())
		}
	}
}

// add adds a target and tells it of what fails already. The mutex is held.
func (n *Notifier) add(t *Target) {
	q := newQueue(t)
	if n.closed {
		q.close()
	}
	n.queues = append(n.queues, q)
	if n.ctx != nil && !n.closed {
		n.work(q)
	}
	for _, known := range n.tracker {
		if known.last.Kind != "" {
			n.offer(q, known.last)
		}
	}
}

// offer queues e if the receiver of q is to be told of it. The mutex is held.
func (n *Notifier) offer(q *queue, e Event) {
	if e, tell := q.desk.consider(q.target, e); tell {
		n.dropped(q, q.push(e))
	}
}

func (n *Notifier) pushAll(q *queue, events []Event) {
	for _, e := range events {
		n.dropped(q, q.push(e))
	}
}

// Notify queues e for its targets. It never blocks.
func (n *Notifier) Notify(e Event) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, q := range n.queues {
		if q.target.wants(e) {
			n.dropped(q, q.push(e))
		}
	}
}

// Outcome reports the end of a job: a trouble if e.Error is set, or else a success.
// It sets e.Since, and e.Kind unless that is the kind of a trouble. While a job keeps
// failing, it is reported once a day. The first success after a trouble is a recovery.
// The first success of a prune or a certificate that was in no trouble is no event.
func (n *Notifier) Outcome(e Event) {
	n.mu.Lock()
	defer n.mu.Unlock()
	e = n.tracker.classify(e)
	for _, q := range n.queues {
		n.offer(q, e)
	}
}

// Run delivers events until ctx ends. Then it delivers waiting events for at most the
// time that last returns then.
func (n *Notifier) Run(ctx context.Context, last func() time.Duration) error {
	deliveries, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	n.mu.Lock()
	if n.ctx != nil {
		n.mu.Unlock()
		return errors.New("notify: Run was called twice")
	}
	n.ctx = deliveries
	for _, q := range n.queues {
		n.work(q)
	}
	n.mu.Unlock()

	<-ctx.Done()
	n.mu.Lock()
	n.closed = true
	for _, q := range n.queues {
		q.close()
		if q.later != nil {
			q.later.Stop()
		}
	}
	n.mu.Unlock()
	defer time.AfterFunc(last(), cancel).Stop()
	n.wg.Wait()
	return nil
}

// work delivers the events in q until q is closed and empty.
func (n *Notifier) work(q *queue) {
	ctx := n.ctx
	n.wg.Go(func() {
		for {
			e, ok := q.pop()
			if !ok {
				return
			}
			n.tried(q, e, n.deliver(ctx, q.target.sender, e))
		}
	})
}

// tried notes whether an event was delivered.
func (n *Notifier) tried(q *queue, e Event, delivered bool) {
	n.mu.Lock()
	if delivered {
		q.desk.delivered(e)
	} else {
		n.arm(q, e)
	}
	n.mu.Unlock()
	if delivered && n.Delivered != nil {
		n.Delivered(e)
	}
}

// arm arms an event that was not delivered: it is delivered after a while. The mutex is
// held.
func (n *Notifier) arm(q *queue, e Event) {
	q.desk.failed(q.target, e)
	if len(q.desk.armed) == 0 || q.later != nil || n.closed {
		return
	}
	q.later = time.AfterFunc(againAfter, func() {
		n.mu.Lock()
		defer n.mu.Unlock()
		q.later = nil
		if !n.closed && slices.Contains(n.queues, q) {
			n.pushAll(q, q.desk.again())
		}
	})
}

// deliver reports whether e was delivered.
func (n *Notifier) deliver(ctx context.Context, s sender, e Event) bool {
	log := n.log.With("receiver", s.kind(), "event", e.Kind, "job", e.Job,
		"repository", e.Repository, "cluster", e.Cluster)
	pauses := backoff.NewExponentialBackOff()
	pauses.InitialInterval, pauses.Multiplier = time.Second, 2
	var last error
	_, err := backoff.Retry(ctx, func() (struct{}, error) {
		if err := ctx.Err(); err != nil { // Run has ended
			return struct{}{}, backoff.Permanent(err)
		}
		last = s.send(ctx, log, e)
		return struct{}{}, last
	}, backoff.WithBackOff(pauses), backoff.WithMaxElapsedTime(retryFor),
		backoff.WithNotify(func(err error, pause time.Duration) {
			log.Warn("a notification was not delivered yet", "again_in", pause.Round(time.Millisecond), "error", err)
		}))
	if err != nil {
		log.Error("a notification was not delivered", "error", cmp.Or(last, err))
		n.result(s, "dropped")
		return false
	}
	log.Debug("a notification was delivered")
	n.result(s, "sent")
	return true
}

// dropped reports events that will not be tried now. The mutex is held.
func (n *Notifier) dropped(q *queue, events []Event) {
	for _, e := range events {
		n.log.Error("a notification is dropped: too many are waiting for the receiver, or it was removed",
			"receiver", q.target.sender.kind(), "event", e.Kind, "job", e.Job,
			"repository", e.Repository, "cluster", e.Cluster)
		n.result(q.target.sender, "dropped")
		n.arm(q, e)
	}
}

func (n *Notifier) result(s sender, result string) {
	if n.Results != nil {
		n.Results(s.kind(), result)
	}
}
