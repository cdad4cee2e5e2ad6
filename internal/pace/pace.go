// Package pace bounds how fast bytes go.
package pace

import (
	"context"
	"time"
)

// slack is how much time that was not used may be made up for. Timers are late at times,
// and a long pause must not end in a burst.
const slack = 100 * time.Millisecond

// Limiter bounds a rate in bytes per second. It is for one goroutine.
type Limiter struct {
	rate int64
	next time.Time // when the bytes before have had their time
}

// New returns a limiter for a rate in bytes per second, where 0 is no bound.
func New(rate int64) *Limiter { return &Limiter{rate: rate} }

// Wait waits until n more bytes may go, or ctx ends.
func (l *Limiter) Wait(ctx context.Context, n int) {
	if l.rate <= 0 {
		return
	}
	now := time.Now()
	if earliest := now.Add(-slack); l.next.Before(earliest) {
		l.next = earliest
	}
	l.next = l.next.Add(time.Duration(float64(n) / float64(l.rate) * float64(time.Second)))
	wait := time.NewTimer(l.next.Sub(now))
	defer wait.Stop()
	select {
	case <-wait.C:
	case <-ctx.Done():
	}
}
