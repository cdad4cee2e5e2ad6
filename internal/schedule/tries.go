package schedule

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v5"
)

const (
	firstPause = 10 * time.Second // about, after the first try
	maxPause   = 5 * time.Minute  // between two tries, at most
)

// Tries says how often and for how long something is tried.
type Tries struct {
	Retries int           // after the first try
	Pause   time.Duration // before the second try, about; 0 means 10 s
	// Timeout is for all tries with their pauses, but without the waits of a
	// [Scheduler] for rooms and turns; 0 sets no bound.
	Timeout time.Duration
}

// Do calls try until it succeeds, fails for good, or no retry is left, and returns
// the last error. Between two tries it calls rest, which waits for about the
// pause and reports whether to go on. Both get a context that ends with the
// time-out.
func (t Tries) Do(
	ctx context.Context, try func(context.Context) error,
	rest func(ctx context.Context, pause time.Duration, err error) bool,
) error {
	if t.Timeout > 0 {
		l := newLimit(ctx, t.Timeout, fmt.Errorf("the run took longer than its time-out of %s", t.Timeout))
		defer l.end()
		ctx = l
	}
	pauses := NewBackoff(t.Pause)
	for n := 0; ; n++ {
		err := try(ctx)
		if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
			err = fmt.Errorf("%w: %w", context.Cause(ctx), err)
		}
		if err == nil || IsPermanent(err) || ctx.Err() != nil || n >= t.Retries ||
			!rest(ctx, min(pauses.NextBackOff(), maxPause), err) {
			return err
		}
	}
}

// Sleep waits for d and reports whether ctx has not ended: it is a rest for
// [Tries.Do].
func Sleep(ctx context.Context, d time.Duration, _ error) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// patience is the pause after the first try of a run that follows failed ones: a job
// that has failed for long is tried less often.
func patience(pause time.Duration, failures int) time.Duration {
	pause = cmp.Or(pause, firstPause)
	for range failures {
		if pause *= 2; pause >= maxPause {
			return maxPause
		}
	}
	return pause
}

// NewBackoff returns the pauses between the tries of a job. The first is about
// first long (10 s if first is 0), each next one twice as long, at most five
// minutes.
func NewBackoff(first time.Duration) *backoff.ExponentialBackOff {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval = cmp.Or(first, firstPause)
	b.Multiplier = 2
	b.MaxInterval = maxPause
	return b
}
