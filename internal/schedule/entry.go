package schedule

import (
	"context"
	"math/rand/v2"
	"time"
)

// entry is a job and its state. The scheduler's mutex guards it.
type entry struct {
	job     Job
	removed bool          // Set left it out, but its last run has not ended
	slot    time.Time     // the next one; zero is none
	due     time.Time     // slot with jitter
	begun   time.Time     // when the newest run began
	busy    bool          // a run waits for its turn, runs or pauses
	run     Run           // does that run; nil before its first try
	turn    *turn         // of its try, or of the next one
	kick    chan struct{} // not nil in a pause: closing it ends the pause
	asking  context.CancelFunc
	again   bool // to be asked again whether a run was missed, after the present one
	state   State
}

// plan sets the next slot.
func (e *entry) plan(slot time.Time) {
	e.slot, e.due = slot, slot
	if slot.IsZero() {
		return
	}
	jitter := e.job.Jitter
	if after := e.job.Line.Next(slot); !after.IsZero() {
		jitter = min(jitter, after.Sub(slot)-1)
	}
	if jitter > 0 {
		e.due = slot.Add(rand.N(jitter + 1))
	}
}

// waits reports whether the job waits for others.
func (e *entry) waits() bool {
	return e.turn != nil && (e.turn.place == outside || e.turn.place == asking)
}

// follow moves the slot after a jump of the wall clock.
func (e *entry) follow(by time.Duration, now time.Time) {
	// After a jump forward, fire deals with the slots that are due now. After
	// a jump back, a slot must not move away as far as the clock was set back.
	if by < 0 && !e.slot.IsZero() {
		if e.job.Line.every > 0 {
			e.plan(e.slot.Add(by))
		} else {
			e.plan(e.job.Line.Next(now))
		}
	}
}
