package schedule

import (
	"context"
	"fmt"
	"runtime/debug"
	"time"
)

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
	if !s.takeTurn(s.ctx, e) {
		return false, nil
	}
	s.mu.Lock()
	job := e.job
	s.mu.Unlock()
	attempt := 0
	try := func(ctx context.Context) error {
		attempt++
		return s.try(ctx, e.job.Name, s.begin(e, attempt), why)
	}
	rest := func(ctx context.Context, pause time.Duration, err error) bool {
		kick := s.endTry(ctx, e, attempt, pause, err)
		if kick == nil {
			return false
		}
		timer := time.NewTimer(pause)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-kick:
			why = Manual
		case <-ctx.Done():
		}
		s.rejoin(e)
		return s.takeTurn(ctx, e)
	}
	err = Tries{Retries: job.Retries, Pause: job.Pause, Timeout: job.Timeout}.Do(s.ctx, try, rest)
	s.mu.Lock()
	s.giveBack(e)
	s.mu.Unlock()
	return true, err
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
	if e.turn == nil {
		return
	}
	if e.turn.granted {
		s.turns.done(e.turn)
	} else {
		s.turns.leave(e.turn)
	}
	e.turn = nil
}

// begin records that a try begins, and returns the run: a manual one may have
// taken the place of the one before.
func (s *Scheduler) begin(e *entry, attempt int) Run {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.Wall()
	if attempt == 1 {
		e.state.Started = now
	}
	e.begun = now
	e.state.Running, e.state.Attempt = true, attempt
	if e.run == nil {
		e.run = e.job.New()
	}
	return e.run
}

// try tries a run. A panic becomes an error, so that other jobs go on.
func (s *Scheduler) try(ctx context.Context, job string, run Run, why Reason) (err error) {
	defer func() {
		if v := recover(); v != nil {
			s.logPanic(job, v)
			err = fmt.Errorf("panic: %v", v)
		}
	}()
	return run.Try(ctx, why)
}

// logPanic logs a recovered panic with the stack of its caller.
func (s *Scheduler) logPanic(job string, v any) {
	s.log.Error("a job panicked; this is a bug in backupd", "job", job, "panic", v, "stack", string(debug.Stack()))
}

// done calls Done of a run.
func (s *Scheduler) done(job string, run Run, err error) {
	defer func() {
		if v := recover(); v != nil {
			s.logPanic(job, v)
		}
	}()
	run.Done(err)
}

// endTry gives back the turn after a try that failed. It returns nil if there is
// to be no other, or else a channel that is closed to end the pause early.
func (s *Scheduler) endTry(
	ctx context.Context, e *entry, attempt int, pause time.Duration, err error,
) (kick <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.giveBack(e)
	switch {
	case ctx.Err() != nil || e.removed:
		return nil
	case !e.due.IsZero() && !s.Wall().Add(pause).Before(e.due):
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

// finish records how a run ended, and reports it. The job is busy until Done
// returns, so that two runs never overlap.
func (s *Scheduler) finish(e *entry, began bool, err error) {
	s.mu.Lock()
	job, run := e.job, e.run
	e.run = nil
	s.mu.Unlock()
	switch {
	case began:
		s.done(job.Name, run, err)
	case run != nil:
		s.done(job.Name, run, ErrNotRun)
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
}
