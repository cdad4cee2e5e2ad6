package schedule

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// maxPause is the longest pause between two tries.
const maxPause = 5 * time.Minute

// start begins a run. The mutex is held.
func (s *Scheduler) start(e *entry, why Reason) {
	e.busy = true
	// join is called here and not in the goroutine, so that runs wait in the
	// order in which they came due.
	e.turn = s.turns.join(e.job.Group)
	s.wg.Go(func() {
		began, err := s.run(e, why)
		s.finish(e, began, err)
	})
}

// run tries a job until it succeeds or has no tries left. It returns false if no
// try began.
func (s *Scheduler) run(e *entry, why Reason) (began bool, err error) {
	ctx := s.ctx
	var pauses *backoff.ExponentialBackOff
	for attempt := 1; s.takeTurn(ctx, e); attempt++ {
		job := s.begin(e, attempt)
		if !began {
			began, pauses = true, NewBackoff(job.Pause)
			if job.Timeout > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeoutCause(ctx, job.Timeout,
					fmt.Errorf("the run took longer than its time-out of %s", job.Timeout))
				defer cancel()
			}
		}
		err = s.try(ctx, job, why)
		if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
			err = fmt.Errorf("%w: %w", context.Cause(ctx), err)
		}
		pause := min(pauses.NextBackOff(), maxPause)
		kick := s.endTry(ctx, e, attempt, pause, err)
		if kick == nil {
			break
		}
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-kick:
			why = Manual
		case <-ctx.Done():
		}
		timer.Stop()
		s.rejoin(e)
	}
	return began, err
}

// NewBackoff returns the pauses between the tries of a job. The first is about
// first long (10 s if first is 0), each next one twice as long, at most five
// minutes.
func NewBackoff(first time.Duration) *backoff.ExponentialBackOff {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval = cmp.Or(first, 10*time.Second)
	b.Multiplier = 2
	b.MaxInterval = maxPause
	return b
}

// takeTurn waits for the turn of e. It returns false if the run must not go on.
func (s *Scheduler) takeTurn(ctx context.Context, e *entry) bool {
	s.mu.Lock()
	t := e.turn
	s.mu.Unlock()
	if t == nil {
		return false
	}
	select {
	case <-t.ready:
	case <-ctx.Done():
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.granted && ctx.Err() == nil && !e.removed {
		return true
	}
	s.giveBack(e)
	return false
}

// giveBack ends the turn of e, whether it was granted or not.
func (s *Scheduler) giveBack(e *entry) {
	if e.turn.granted {
		s.turns.done(e.turn)
	} else {
		s.turns.leave(e.turn)
	}
	e.turn = nil
}

// begin records that a try begins, and returns the current job: Set may have
// replaced it since the last try.
func (s *Scheduler) begin(e *entry, attempt int) Job {
	s.mu.Lock()
	now := s.wall()
	if attempt == 1 {
		e.state.Started = now
	}
	e.begun = now
	e.state.Running, e.state.Attempt = true, attempt
	job := e.job
	s.mu.Unlock()
	return job
}

// try runs a job once. A panic becomes an error, so that other jobs go on.
func (s *Scheduler) try(ctx context.Context, job Job, why Reason) (err error) {
	defer func() {
		if v := recover(); v != nil {
			s.logPanic(job.Name, v)
			err = fmt.Errorf("panic: %v", v)
		}
	}()
	return job.Run(ctx, why)
}

// logPanic logs a recovered panic with the stack of its caller.
func (s *Scheduler) logPanic(job string, v any) {
	s.log.Error("a job panicked; this is a bug of backupd", "job", job, "panic", v, "stack", string(debug.Stack()))
}

// done reports the result of a run to its job.
func (s *Scheduler) done(job Job, err error) {
	defer func() {
		if v := recover(); v != nil {
			s.logPanic(job.Name, v)
		}
	}()
	if job.Done != nil {
		job.Done(err)
	}
}

// endTry gives back the turn. It returns nil if this was the last try, or else
// a channel that is closed to end the pause early.
func (s *Scheduler) endTry(
	ctx context.Context, e *entry, attempt int, pause time.Duration, err error,
) (kick <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.giveBack(e)
	switch {
	case err == nil || IsPermanent(err) || ctx.Err() != nil || e.removed || attempt > e.job.Retries:
		return nil
	case !e.due.IsZero() && !s.wall().Add(pause).Before(e.due):
		// The next slot is the next try.
		return nil
	}
	s.log.Warn("a try failed", "job", e.job.Name, "attempt", attempt,
		"again_in", pause.Round(time.Millisecond), "error", err)
	e.kick = make(chan struct{})
	return e.kick
}

// unpause ends a pause, if there is one.
func (e *entry) unpause() {
	if e.kick != nil {
		close(e.kick)
		e.kick = nil
	}
}

// rejoin waits for another turn after a pause.
func (s *Scheduler) rejoin(e *entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e.kick = nil
	if !e.removed {
		e.turn = s.turns.join(e.job.Group)
	}
}

// finish records how a run ended, and reports it to the job. The job is busy
// until Done returns, so that Done is never called twice at once.
func (s *Scheduler) finish(e *entry, began bool, err error) {
	s.mu.Lock()
	job := e.job
	s.mu.Unlock()
	if began {
		s.done(job, err)
	}
	s.mu.Lock()
	e.busy = false
	e.state.Running, e.state.Attempt = false, 0
	if began {
		e.state.Ended, e.state.Err = s.wall(), err
		switch {
		case err == nil:
			e.state.Failures = 0
		case s.ctx.Err() == nil: // else it was cancelled, which is no failure
			e.state.Failures++
			s.log.Error("a run failed", "job", e.job.Name, "in_a_row", e.state.Failures, "error", err)
		}
	}
	if e.removed {
		delete(s.entries, e.job.Name)
	}
	s.mu.Unlock()
}
