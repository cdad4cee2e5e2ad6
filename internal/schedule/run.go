package schedule

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"time"
)

// start begins a run. The mutex is held.
func (s *Scheduler) start(e *entry, why Reason) {
	e.busy = true
	// join is called here and not in the goroutine, so that runs wait in the
	// order in which they came due.
	e.turn = s.turns.join(e.job.Group)
	r := &runner{mu: &s.mu, e: e, turns: &s.turns, wall: s.Wall, log: s.log, name: e.job.Name, why: why}
	s.wg.Go(func() {
		began, err := r.run(s.ctx)
		r.report(began, err)
		s.finish(e, began, err)
	})
}

// finish records how a run ended. The job is busy until Done has returned, so that
// two runs never overlap.
func (s *Scheduler) finish(e *entry, began bool, err error) {
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

// runner does one run of a job, with all its tries.
type runner struct {
	mu    *sync.Mutex // the one that guards e and turns
	e     *entry
	turns *turns
	wall  func() time.Time
	log   *slog.Logger
	name  string

	why     Reason
	attempt int // number of the current try, from 1
}

// run tries the job until it succeeds or has no tries left. It returns false if no
// try began.
func (r *runner) run(ctx context.Context) (began bool, err error) {
	if !r.takeTurn(ctx) {
		return false, nil
	}
	r.mu.Lock()
	job := r.e.job
	r.mu.Unlock()
	err = Tries{Retries: job.Retries, Pause: job.Pause, Timeout: job.Timeout}.Do(ctx, r.try, r.rest)
	r.mu.Lock()
	r.giveBack()
	r.mu.Unlock()
	return true, err
}

// takeTurn waits for the turn. It returns false if the run must not go on.
func (r *runner) takeTurn(ctx context.Context) bool {
	r.mu.Lock()
	t := r.e.turn
	r.mu.Unlock()
	if t == nil {
		return false
	}
	select {
	case <-t.ready:
	case <-ctx.Done():
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if t.granted && ctx.Err() == nil && !r.e.removed {
		return true
	}
	r.giveBack()
	return false
}

// giveBack ends the turn, whether it was granted or not. The mutex is held.
func (r *runner) giveBack() {
	e := r.e
	if e.turn == nil {
		return
	}
	if e.turn.granted {
		r.turns.done(e.turn)
	} else {
		r.turns.leave(e.turn)
	}
	e.turn = nil
}

// begin records that a try begins, and returns the run: a manual one may have
// taken the place of the one before.
func (r *runner) begin() Run {
	r.mu.Lock()
	defer r.mu.Unlock()
	e, now := r.e, r.wall()
	if r.attempt == 1 {
		e.state.Started = now
	}
	e.begun = now
	e.state.Running, e.state.Attempt = true, r.attempt
	if e.run == nil {
		e.run = e.job.New()
	}
	return e.run
}

// try tries the run. A panic becomes an error, so that other jobs go on.
func (r *runner) try(ctx context.Context) (err error) {
	r.attempt++
	run := r.begin()
	defer func() {
		if v := recover(); v != nil {
			logPanic(r.log, r.name, v)
			err = fmt.Errorf("panic: %v", v)
		}
	}()
	return run.Try(ctx, r.why)
}

// logPanic logs a recovered panic with the stack of its caller.
func logPanic(log *slog.Logger, job string, v any) {
	log.Error("a job panicked; this is a bug in backupd", "job", job, "panic", v, "stack", string(debug.Stack()))
}

// done calls Done of a run.
func (r *runner) done(run Run, err error) {
	defer func() {
		if v := recover(); v != nil {
			logPanic(r.log, r.name, v)
		}
	}()
	run.Done(err)
}

// rest pauses after a try that failed, and waits for another turn. It returns
// false if there is to be no other try.
func (r *runner) rest(ctx context.Context, pause time.Duration, err error) bool {
	kick := r.endTry(ctx, pause, err)
	if kick == nil {
		return false
	}
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-kick:
		r.why = Manual
	case <-ctx.Done():
	}
	r.rejoin()
	return r.takeTurn(ctx)
}

// endTry gives back the turn after a try that failed. It returns nil if there is
// to be no other, or else a channel that is closed to end the pause early.
func (r *runner) endTry(ctx context.Context, pause time.Duration, err error) (kick <-chan struct{}) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.giveBack()
	e := r.e
	switch {
	case ctx.Err() != nil || e.removed:
		return nil
	case !e.due.IsZero() && !r.wall().Add(pause).Before(e.due):
		// The next slot is the next try.
		return nil
	}
	r.log.Warn("a try failed", "job", r.name, "attempt", r.attempt,
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
func (r *runner) rejoin() {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.e
	e.kick = nil
	if !e.removed {
		e.turn = r.turns.join(e.job.Group)
	}
}

// report gives the result to the run.
func (r *runner) report(began bool, err error) {
	r.mu.Lock()
	run := r.e.run
	r.e.run = nil
	r.mu.Unlock()
	switch {
	case began:
		r.done(run, err)
	case run != nil:
		r.done(run, ErrNotRun)
	}
}
