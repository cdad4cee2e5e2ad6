package schedule

import (
	"context"
	"sync"
	"time"
)

// limit is a context that ends after a time, of which pauses are no part.
type limit struct {
	context.Context
	cause  error // of the end
	cancel context.CancelCauseFunc

	mu     sync.Mutex // guards what follows
	left   time.Duration
	since  time.Time // of the last start of the timer
	timer  *time.Timer
	paused int
}

// newLimit returns a context that ends d later with such a cause. The caller must
// call end.
func newLimit(ctx context.Context, d time.Duration, cause error) *limit {
	l := &limit{cause: cause, left: d, since: time.Now()}
	l.Context, l.cancel = context.WithCancelCause(ctx)
	l.timer = time.AfterFunc(d, func() { l.cancel(cause) })
	return l
}

// Err returns [context.DeadlineExceeded] after the end of the time, as that of a
// context with a time-out does.
func (l *limit) Err() error {
	err := l.Context.Err()
	if err != nil && context.Cause(l.Context) == l.cause {
		return context.DeadlineExceeded
	}
	return err
}

// pause stops the time until resume is called. A nil limit does nothing.
func (l *limit) pause() {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.paused++; l.paused == 1 && l.timer.Stop() {
		l.left -= time.Since(l.since)
	}
}

func (l *limit) resume() {
	if l == nil {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.paused--; l.paused == 0 && l.Context.Err() == nil {
		l.since = time.Now()
		l.timer.Reset(max(0, l.left))
	}
}

func (l *limit) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.timer.Stop()
	l.cancel(nil)
}
