package schedule

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
)

// Turn is the turn of one try. A try begins without one and does what is cheap. It
// takes the turn before it does what is expensive, and has it until it ends.
type Turn struct {
	mu    *sync.Mutex // the one that guards the turns
	turns *turns
	turn  *turn
	limit *limit // of the run; nil: there is none
	began time.Time

	moved atomic.Int64 // when something last moved, since began
	busy  atomic.Bool  // though nothing moves
	lent  atomic.Bool

	timer *time.Timer // guarded by mu; looks whether something has moved
	armed time.Time
}

// Queue gives turns without a scheduler. Its methods may be called concurrently.
type Queue struct {
	mu    sync.Mutex // guards turns
	turns turns
}

// NewQueue returns a queue that gives at most limit turns at once; a limit below one
// means one.
func NewQueue(limit int) *Queue { return &Queue{turns: newTurns(limit)} }

// Enter waits until a try of a job of that group and lane may begin. The caller must
// call Leave when it has ended.
func (q *Queue) Enter(ctx context.Context, group, lane string) (*Turn, error) {
	q.mu.Lock()
	t := q.turns.join(group, lane, 0)
	q.mu.Unlock()
	l, _ := ctx.(*limit)
	l.pause()
	defer l.resume()
	turn := newTurn(&q.mu, &q.turns, t, l)
	select {
	case <-t.entered:
		return turn, nil
	case <-ctx.Done():
		turn.Leave()
		return nil, context.Cause(ctx)
	}
}

func newTurn(mu *sync.Mutex, turns *turns, t *turn, l *limit) *Turn {
	return &Turn{mu: mu, turns: turns, turn: t, limit: l, began: time.Now()}
}

// Leave ends the try for the others in its queue.
func (t *Turn) Leave() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.stop()
	t.turns.done(t.turn)
}

// Take waits for the turn. It returns at once if the try has it already. The wait
// does not count for the time-out of the run. It returns the cause of the end of ctx,
// or [ErrNotRun], if that comes first.
func (t *Turn) Take(ctx context.Context) error {
	t.mu.Lock()
	t.turns.ask(t.turn)
	t.mu.Unlock()
	t.limit.pause()
	defer t.limit.resume()
	select {
	case <-t.turn.granted:
	case <-ctx.Done():
		return context.Cause(ctx)
	}
	t.Moved(false)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.turn.place == away {
		return Permanent(ErrNotRun)
	}
	if t.timer == nil {
		t.armed = time.Now()
		t.timer = time.AfterFunc(idle, t.watch)
	}
	return nil
}

// Moved notes that something moves in the try. Without it the turn is lent after 15 s,
// unless the try is busy with work of which nothing tells.
func (t *Turn) Moved(busy bool) {
	t.moved.Store(int64(time.Since(t.began)))
	t.busy.Store(busy)
	if !t.lent.Load() {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.lent.Store(false)
	t.turns.resume(t.turn)
}

// watch lends the turn if nothing has moved.
func (t *Turn) watch() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.turn.place == away {
		return
	}
	now := time.Now()
	still := now.Sub(t.began) - time.Duration(t.moved.Load())
	wait := idle - still
	if still >= idle {
		wait = idle
		// A process that was stopped has moved nothing either.
		if stopped := now.Sub(t.armed) >= 2*idle; !stopped && !t.busy.Load() {
			t.lent.Store(true)
			t.turns.lend(t.turn)
		}
	}
	t.armed = now
	t.timer.Reset(wait)
}

// stop ends the watch. The mutex is held.
func (t *Turn) stop() {
	if t.timer != nil {
		t.timer.Stop()
	}
}
