package notify

import (
	"cmp"
	"context"
	"errors"
	"fmt"
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
	// flushFor is how long Run goes on to deliver after its context has ended.
	flushFor = 10 * time.Second
)

// Receiver is a [Webhook], [Slack], [Healthchecks] or [Command].
type Receiver interface {
	// prepare checks the receiver without sending anything to it.
	prepare() (sender, error)
}

// sender delivers one event. It marks errors that another try would only repeat by
// backoff.Permanent. No error holds a secret.
type sender interface {
	kind() string
	send(ctx context.Context, log *slog.Logger, e Event) error
}

// Target is a receiver with the events it gets.
type Target struct {
	sender   sender
	clusters []string
	kinds    []Kind
}

// NewTarget checks a receiver and returns a target that gets events of the clusters
// (empty: all) and of the kinds (empty: failures and recoveries, and for
// [Healthchecks] all). A target for successes gets recoveries too, because a
// recovery replaces a success.
func NewTarget(to Receiver, clusters []string, kinds []Kind) (*Target, error) {
	for _, k := range kinds {
		if !slices.Contains([]Kind{Started, Succeeded, Failed, Recovered}, k) {
			return nil, fmt.Errorf("unknown kind of event %q: want %s, %s, %s or %s",
				k, Failed, Recovered, Succeeded, Started)
		}
	}
	s, err := to.prepare()
	if err != nil {
		return nil, err
	}
	if len(kinds) == 0 {
		kinds = []Kind{Failed, Recovered}
		if _, ok := to.(Healthchecks); ok {
			kinds = []Kind{Started, Succeeded, Failed, Recovered}
		}
	}
	return &Target{sender: s, clusters: clusters, kinds: kinds}, nil
}

func (t *Target) wants(e Event) bool {
	if len(t.clusters) > 0 && !slices.Contains(t.clusters, e.Cluster) {
		return false
	}
	if _, pings := t.sender.(*ping); pings {
		return slices.Contains(t.kinds, e.Kind) && pingWants(e)
	}
	wanted := slices.Contains(t.kinds, e.Kind) || e.Kind == Recovered && slices.Contains(t.kinds, Succeeded)
	return !e.repeat && wanted
}

// Notifier delivers events. Its methods may be called concurrently.
type Notifier struct {
	// Results, if set before Run, is called with the result of each delivery: the
	// kind of the receiver (webhook, slack, healthchecks, command), and sent or
	// dropped. It may be called concurrently.
	Results func(kind, result string)

	log     *slog.Logger
	tracker tracker
	wg      sync.WaitGroup

	mu     sync.Mutex
	ctx    context.Context // of deliveries; nil before Run
	closed bool
	queues []*queue
}

// New returns a notifier for targets. Events are kept until Run.
func New(targets []*Target, log *slog.Logger) *Notifier {
	n := &Notifier{log: log, tracker: tracker{failing: map[task]failure{}}}
	n.Set(targets)
	return n
}

// Set replaces the targets. Waiting events of old targets are still delivered.
func (n *Notifier) Set(targets []*Target) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, q := range n.queues {
		q.close()
		if n.ctx == nil {
			n.dropped(q, q.drain())
		}
	}
	n.queues = nil
	for _, t := range targets {
		q := newQueue(t)
		if n.closed {
			q.close()
		}
		n.queues = append(n.queues, q)
		if n.ctx != nil && !n.closed {
			n.work(q)
		}
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

// Outcome reports the end of a job: a failure if e.Error is set, or else a success.
// It sets e.Kind and e.Since. While a job keeps failing, it is reported once a day.
// The first success after a failure is a recovery.
func (n *Notifier) Outcome(e Event) { n.Notify(n.tracker.classify(e)) }

// Run delivers events until ctx ends. Then it delivers waiting events for at most
// ten seconds.
func (n *Notifier) Run(ctx context.Context) error {
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
	}
	n.mu.Unlock()
	defer time.AfterFunc(flushFor, cancel).Stop()
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
			n.deliver(ctx, q.target.sender, e)
		}
	})
}

func (n *Notifier) deliver(ctx context.Context, s sender, e Event) {
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
		return
	}
	log.Debug("a notification was delivered")
	n.result(s, "sent")
}

func (n *Notifier) dropped(q *queue, events []Event) {
	for _, e := range events {
		n.log.Error("a notification is dropped: too many are waiting for the receiver, or it was removed",
			"receiver", q.target.sender.kind(), "event", e.Kind, "job", e.Job,
			"repository", e.Repository, "cluster", e.Cluster)
		n.result(q.target.sender, "dropped")
	}
}

func (n *Notifier) result(s sender, result string) {
	if n.Results != nil {
		n.Results(s.kind(), result)
	}
}
