// Package schedule reads cron lines and runs jobs by them. A job never overlaps
// itself, and only so many run at once.
package schedule

import (
	"context"
	"errors"
	"time"
)

// Line is a parsed cron line.
type Line struct { /* filled in by the package's author */
}

// Errors of [Scheduler.Trigger].
var (
	ErrRunning = errors.New("the job is running already")
	ErrUnknown = errors.New("there is no such job")
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
// same time.
type Job struct {
	Name  string
	Group string
	Line  Line
	// Jitter delays each scheduled run by a random time up to it, at most.
	Jitter time.Duration
	// Last tells when the job was last done. It is asked when the scheduler
	// starts, when the job is new and when the clock has jumped; a run that was
	// missed since is caught up once. Nil: never caught up.
	Last func(ctx context.Context) (time.Time, error)
	Run  func(ctx context.Context, why Reason) error
	// Retries is how often a failed run is tried again before the next slot,
	// with growing pauses that begin with Pause (default 10 s).
	Retries int
	Pause   time.Duration
	// Timeout bounds a run with its retries; 0 is no bound.
	Timeout time.Duration
}

// State is how a job stands.
type State struct {
	Name     string
	Running  bool
	Next     time.Time // zero while nothing is planned
	Started  time.Time // of the running or last run
	Ended    time.Time
	Err      error // of the last run that ended
	Failures int   // runs that failed in a row
	Attempt  int   // of the running run, from 1
}
