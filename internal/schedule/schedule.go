// Package schedule reads cron lines and runs jobs by them. A job never overlaps
// itself, and only so many run at once.
package schedule

import (
	"context"
	"errors"
	"time"
)

// Errors of [Scheduler.Trigger].
var (
	ErrRunning = errors.New("the job is running or waiting for its turn already")
	ErrUnknown = errors.New("there is no such job")
	ErrStopped = errors.New("the scheduler is not running")
)

// Reason says why a job is run.
type Reason string

// Reasons.
const (
	Scheduled Reason = "scheduled"
	CaughtUp  Reason = "caught up" // a run was missed
	Manual    Reason = "manual"
)

// Job is one thing to do again and again. Jobs of one Group never run at the
// same time; no Group is no bound.
type Job struct {
	Name  string
	Group string
	// Line says when; a job with the zero Line runs when it is triggered.
	Line Line
	// Jitter delays each scheduled run by a random time up to it, at most, and
	// never to the next slot.
	Jitter time.Duration
	// Last tells when the job was last done; the zero time is never. It is asked
	// when the scheduler starts, when the job is new and when the clock has jumped
	// or a slot was missed by minutes; a run that was missed since is caught up
	// once. An error is asked again, and the schedule goes on meanwhile. Nil:
	// never caught up.
	Last func(ctx context.Context) (time.Time, error)
	// Run does it. An error marked by [Permanent] is not tried again.
	Run func(ctx context.Context, why Reason) error
	// Done, if set, is told what became of a run after all its tries.
	Done func(err error)
	// Retries is how often a failed run is tried again before the next slot,
	// with growing pauses that begin with about Pause (default 10 s). Others may
	// run in the pauses.
	Retries int
	Pause   time.Duration
	// Timeout bounds a run with its retries; 0 is no bound.
	Timeout time.Duration
}

// State is how a job stands.
type State struct {
	Name     string
	Running  bool      // or pausing before it is tried again
	Waiting  bool      // for its turn
	Next     time.Time // with its jitter; zero while nothing is planned
	Started  time.Time // of the running or last run
	Ended    time.Time
	Err      error // of the last run that ended
	Failures int   // runs that failed in a row
	Attempt  int   // of the running run, from 1
}

type permanentError struct{ error }

func (e permanentError) Unwrap() error { return e.error }

// Permanent marks an error that trying again cannot mend. The error's text and
// chain stay; Permanent(nil) is nil.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return permanentError{err}
}

// IsPermanent tells whether err, or one in its chain, was marked by [Permanent].
func IsPermanent(err error) bool {
	_, ok := errors.AsType[permanentError](err)
	return ok
}
