package schedule

import (
	"context"
	"fmt"
	"time"
)

// askTimeout bounds one question for Last.
const askTimeout = 5 * time.Minute

// ask asks in the background when a job was last done, and catches up if a run
// was missed since. The mutex is held.
func (s *Scheduler) ask(e *entry) {
	e.stopAsking()
	if e.job.Last == nil || e.removed || !s.running {
		return
	}
	ctx, cancel := context.WithCancel(s.ctx)
	e.asking = cancel
	s.wg.Go(func() {
		defer cancel()
		pauses := NewBackoff(0)
		for {
			last, err := s.last(ctx, e)
			if ctx.Err() != nil {
				return
			}
			if err == nil {
				s.answer(ctx, e, last)
				return
			}
			pause := min(pauses.NextBackOff(), maxPause)
			s.log.Warn("cannot find out when a job was last done: its schedule goes on, and a missed run is caught "+
				"up later",
				"job", e.job.Name, "again_in", pause.Round(time.Millisecond), "error", err)
			timer := time.NewTimer(pause)
			select {
			case <-timer.C:
			case <-ctx.Done():
				timer.Stop()
				return
			}
		}
	})
}

func (e *entry) stopAsking() {
	if e.asking != nil {
		e.asking()
		e.asking = nil
	}
}

// last asks the current job: Set may have replaced it since ask was called.
func (s *Scheduler) last(ctx context.Context, e *entry) (last time.Time, err error) {
	s.mu.Lock()
	ask, name := e.job.Last, e.job.Name
	s.mu.Unlock()
	if ask == nil {
		return s.Wall(), nil
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	defer func() {
		if v := recover(); v != nil {
			s.logPanic(name, v)
			err = fmt.Errorf("panic: %v", v)
		}
	}()
	return ask(ctx)
}

// answer compares the time that Last returned with the line.
func (s *Scheduler) answer(ctx context.Context, e *entry, last time.Time) {
	s.mu.Lock()
	if ctx.Err() != nil || e.removed || e.job.Line.IsZero() {
		s.mu.Unlock()
		return
	}
	now := s.Wall()
	if last.After(now.Add(jump)) {
		s.log.Warn("a job was last done in the future: a clock is or was wrong", "job", e.job.Name, "last", last)
	}
	// A slot whose run was tried was not missed, however the run ended.
	if e.begun.After(last) {
		last = e.begun
	}
	next := now
	if !last.IsZero() {
		next = e.job.Line.Next(last)
	}
	switch {
	case next.IsZero():
	case next.After(now):
		// An @every line counts from the time the job was last done.
		if next.Before(e.slot) {
			e.plan(next)
		}
	case !e.busy:
		s.log.Info("a run was missed and is caught up", "job", e.job.Name, "slot", next, "last", last)
		s.start(e, CaughtUp)
	}
	s.mu.Unlock()
	s.nudge()
}
