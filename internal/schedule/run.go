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
	// Joined here and not in the goroutine, so that runs wait in the order in
	// which they came due.
	e.turn = s.turns.join(e.job.Group)
	s.wg.Go(func() {
		began, err := s.run(e, why)
		s.finish(e, began, err)
	})
}

// run tries until it is done or there are no more tries. It returns false if
// not even one was begun.
func (s *Scheduler) run(e *entry, why Reason) (began bool, err error) {
	ctx := s.ctx
	var pauses *backoff.ExponentialBackOff
	for attempt := 1; s.takeTurn(ctx, e); attempt++ {
		job := s.begin(e, attempt)
		if !began {
			began, pauses = true, NewBackoff(job.Pause)
			if job.Timeout > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeoutCause(ctx, job.Timeout, fmt.Errorf("the run took longer than its time-out of %s", job.Timeout))
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

// NewBackoff returns the pauses between the tries of a job, which begin with
// about first (0: 10 s), double, and end at five minutes.
func NewBackoff(first time.Duration) *backoff.ExponentialBackOff {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval = cmp.Or(first, 10*time.Second)
	b.Multiplier = 2
	b.MaxInterval = maxPause
	return b
}

// takeTurn waits until the run of e may go on. It returns false if it never may.
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

// giveBack ends the turn of e, whether it was had or only waited for.
func (s *Scheduler) giveBack(e *entry) {
	if e.turn.granted {
		s.turns.done(e.turn)
	} else {
		s.turns.leave(e.turn)
	}
	e.turn = nil
}

// begin notes that a try begins, and returns the job as it is now: it may have
// been set anew since the last try.
func (s *Scheduler) begin(e *entry, attempt int) Job {
	s.mu.Lock()
	now := s.Wall()
	if attempt == 1 {
		e.state.Started = now
	}
	e.begun = now
	e.state.Running, e.state.Attempt = true, attempt
	job := e.job
	s.mu.Unlock()
	s.changed()
	return job
}

// try runs a job once. A panic is an error: the other jobs are not to blame.
func (s *Scheduler) try(ctx context.Context, job Job, why Reason) (err error) {
	defer func() {
		if v := recover(); v != nil {
			s.log.Error("a job panicked; this is a bug of backupd", "job", job.Name, "panic", v, "stack", string(debug.Stack()))
			err = fmt.Errorf("panic: %v", v)
		}
	}()
	return job.Run(ctx, why)
}

// done tells the job what became of its run.
func (s *Scheduler) done(job Job, err error) {
	defer func() {
		if v := recover(); v != nil {
			s.log.Error("a job panicked; this is a bug of backupd", "job", job.Name, "panic", v, "stack", string(debug.Stack()))
		}
	}()
	if job.Done != nil {
		job.Done(err)
	}
}

// endTry gives back the turn. If the run is to be tried again it returns what
// ends the pause early, or else nil.
func (s *Scheduler) endTry(ctx context.Context, e *entry, attempt int, pause time.Duration, err error) (kick <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.giveBack(e)
	switch {
	case err == nil || IsPermanent(err) || ctx.Err() != nil || e.removed || attempt > e.job.Retries:
		return nil
	case !e.due.IsZero() && !s.Wall().Add(pause).Before(e.due):
		// The next slot is the next try.
		return nil
	}
	s.log.Warn("a try failed", "job", e.job.Name, "attempt", attempt, "again_in", pause.Round(time.Millisecond), "error", err)
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

// finish notes how a run ended, and tells the job. Until Done returns the job
// is busy, so that Done is never told of two runs at once.
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
		e.state.Ended, e.state.Err = s.Wall(), err
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
	s.changed()
}
