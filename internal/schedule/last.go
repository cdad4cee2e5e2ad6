package schedule

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"
)

// askTimeout bounds one question for Last.
const askTimeout = 5 * time.Minute

// brake is how long a process waits, at most, before it catches up what was missed
// before it was started: a small part of the time between two slots. So a process that
// ends again and again does not begin a run of each job each time.
func brake(interval, most time.Duration) time.Duration { return min(interval/20, most) }

// ask asks in the background when a job was last done, and catches up if a run
// was missed since: at once, or after a part of the time given. The mutex is held.
func (s *Scheduler) ask(e *entry, most time.Duration) {
	e.stopAsking()
	if e.job.Last == nil || e.removed || !s.running {
		return
	}
	ctx, cancel := context.WithCancel(s.ctx)
	e.asking = cancel
	q := &question{mu: &s.mu, e: e, wall: s.Wall, log: s.log, name: e.job.Name}
	s.wg.Go(func() {
		defer cancel()
		last, ok := q.ask(ctx)
		if !ok {
			return
		}
		if pause := s.answer(ctx, e, last, most); pause > 0 && Sleep(ctx, pause, nil) {
			s.answer(ctx, e, last, 0)
		}
	})
}

func (e *entry) stopAsking() {
	if e.asking != nil {
		e.asking()
		e.asking = nil
	}
}

// question is one question when a job was last done.
type question struct {
	mu   *sync.Mutex // the one that guards e
	e    *entry
	wall func() time.Time
	log  *slog.Logger
	name string
}

// ask asks until there is an answer. It returns false if ctx has ended.
func (q *question) ask(ctx context.Context) (last time.Time, ok bool) {
	pauses := NewBackoff(0)
	for {
		last, err := q.try(ctx)
		if ctx.Err() != nil {
			return time.Time{}, false
		}
		if err == nil {
			return last, true
		}
		pause := min(pauses.NextBackOff(), maxPause)
		q.log.Warn("cannot find out when a job was last done: its schedule goes on, and a missed run is caught "+
			"up later",
			"job", q.name, "again_in", pause.Round(time.Millisecond), "error", err)
		timer := time.NewTimer(pause)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return time.Time{}, false
		}
	}
}

// try asks the current job: Set may have replaced it since the question was put.
func (q *question) try(ctx context.Context) (last time.Time, err error) {
	q.mu.Lock()
	ask := q.e.job.Last
	q.mu.Unlock()
	if ask == nil {
		return q.wall(), nil
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	defer func() {
		if v := recover(); v != nil {
			logPanic(q.log, q.name, v)
			err = fmt.Errorf("panic: %v", v)
		}
	}()
	return ask(ctx)
}

// answer compares the time that Last returned with the line. It returns how long to wait
// before a missed run is caught up, if that is not to be done now. A job that was never
// done waits for nothing.
func (s *Scheduler) answer(ctx context.Context, e *entry, last time.Time, most time.Duration) (pause time.Duration) {
	s.mu.Lock()
	defer s.wake.ring()
	defer s.mu.Unlock()
	if ctx.Err() != nil || e.removed || e.job.Line.IsZero() {
		return 0
	}
	now := s.Wall()
	if slot := e.job.Line.Next(now); !last.IsZero() && !slot.IsZero() {
		pause = brake(e.job.Line.Next(slot).Sub(slot), most)
	}
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
	case e.busy:
		// The run may have begun long before, as where the host was suspended meanwhile.
		e.again = true
	case pause > 0:
		return pause/2 + rand.N(pause/2+1)
	default:
		if last.IsZero() {
			s.log.Info("there was no run yet, and one begins", "job", e.job.Name)
		} else {
			s.log.Info("a run was missed and is caught up", "job", e.job.Name, "slot", next, "last", last)
		}
		s.start(e, CaughtUp)
	}
	return 0
}
