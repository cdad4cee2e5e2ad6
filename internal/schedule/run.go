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
	r := &runner{mu: &s.mu, e: e, turns: s.turnsOf(e), wall: s.Wall, log: s.log, name: e.job.Name, why: why}
	// join is called here and not in the goroutine, so that runs wait in the
	// order in which they came due.
	r.join()
	s.wg.Go(func() {
		began, err := r.run(s.ctx)
		run := r.report(began, err)
		s.finish(e, began, err)
		r.free(run)
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
	if e.again {
		e.again = false
		s.ask(e, 0)
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
	tried   Run // made the last try
}

// run tries the job until it succeeds or has no tries left. It returns false if no
// try began.
func (r *runner) run(ctx context.Context) (began bool, err error) {
	if !r.enter(ctx) {
		return false, nil
	}
	r.mu.Lock()
	job := r.e.job
	pause := patience(job.Pause, r.e.state.Failures)
	r.mu.Unlock()
	err = Tries{Retries: job.Retries, Pause: pause, Timeout: job.Timeout}.Do(ctx, r.try, r.rest)
	r.mu.Lock()
	r.giveBack()
	r.mu.Unlock()
	return true, err
}

// join queues the next try. The mutex is held.
func (r *runner) join() {
	failures := r.e.state.Failures
	switch {
	case r.why == Manual:
		failures = 0 // somebody waits for it
	case r.e.state.Ended.IsZero():
		failures = 1 // nobody knows yet whether it can succeed
	}
	r.e.turn = r.turns.join(r.e.job.Group, r.e.job.Lane, failures)
}

// enter waits until the next try may begin. It returns false if the run must not go
// on.
func (r *runner) enter(ctx context.Context) bool {
	r.mu.Lock()
	t := r.e.turn
	r.mu.Unlock()
	if t == nil {
		return false
	}
	select {
	case <-t.entered:
	case <-ctx.Done():
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if t.place == room && ctx.Err() == nil && !r.e.removed {
		return true
	}
	r.giveBack()
	return false
}

// giveBack ends the try for the others, or takes it out of their queue. The mutex is
// held.
func (r *runner) giveBack() {
	if t := r.e.turn; t != nil {
		r.turns.done(t)
	}
	r.e.turn = nil
}

// begin records that a try begins, and returns the run: a manual one may have
// taken the place of the one before.
func (r *runner) begin(ctx context.Context) (Run, *Turn) {
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
	l, _ := ctx.(*limit)
	return e.run, newTurn(r.mu, r.turns, e.turn, l)
}

// try tries the run. A panic becomes an error, so that other jobs go on.
func (r *runner) try(ctx context.Context) (err error) {
	r.attempt++
	run, turn := r.begin(ctx)
	defer func() {
		if v := recover(); v != nil {
			logPanic(r.log, r.name, v)
			err = fmt.Errorf("panic: %v", v)
		}
		r.mu.Lock()
		turn.stop()
		r.mu.Unlock()
		r.tried = run
	}()
	return run.Try(ctx, r.why, turn)
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

// free calls Free of a run; nil is allowed.
func (r *runner) free(run Run) {
	defer func() {
		if v := recover(); v != nil {
			logPanic(r.log, r.name, v)
		}
	}()
	if run != nil {
		run.Free()
	}
}

// rest pauses after a try that failed, and waits until another may begin. It returns
// false if there is to be no other try.
func (r *runner) rest(ctx context.Context, pause time.Duration, err error) bool {
	kick := r.endTry(ctx, pause, err)
	if kick == nil {
		return false
	}
	r.free(r.tried)
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-kick:
		r.why = Manual
	case <-ctx.Done():
	}
	r.rejoin()
	l, _ := ctx.(*limit)
	l.pause()
	defer l.resume()
	return r.enter(ctx)
}

// endTry lets others go on after a try that failed. It returns nil if there is
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

// rejoin queues the next try after a pause.
func (r *runner) rejoin() {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.e
	e.kick = nil
	if !e.removed {
		r.join()
	}
}

// report gives the result to the run, and returns the run; nil: there is none.
func (r *runner) report(began bool, err error) Run {
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
	return run
}
