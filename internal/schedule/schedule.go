// Package schedule reads cron lines and runs jobs by them. A job never overlaps
// itself, and a limit bounds how many jobs do something expensive at once.
package schedule

import (
	"context"
	"errors"
	"time"
)

// Errors of [Scheduler.Trigger].
var (
	ErrRunning = errors.New("the job is already running or waiting for its turn")
	ErrUnknown = errors.New("there is no such job")
	ErrStopped = errors.New("the scheduler is not running")
	// ErrNotRun is the result of a run that was given to Trigger and never had its
	// turn.
	ErrNotRun = errors.New("the job was removed or the scheduler stopped before its turn came")
)

// Reason says why a job is run.
type Reason string

// Reasons.
const (
	Scheduled Reason = "scheduled"
	CaughtUp  Reason = "caught up" // a run was missed
	Manual    Reason = "manual"
)

// Job is work that is repeated. Jobs of one Group never run at the same time; an
// empty Group sets no such bound.
type Job struct {
	Name  string
	Group string
	// Aside jobs take no turn of the others, whatever their groups, so they never delay
	// them. One aside job runs at a time.
	Aside bool
	// Lane is where the bytes of the job go. Runs that hang there leave turns for
	// other lanes. An empty Lane sets no bound.
	Lane string
	// Line says when to run. A job with the zero Line runs only when triggered.
	Line Line
	// Jitter is the longest random delay of a scheduled run. No delay reaches the
	// next slot.
	Jitter time.Duration
	// Last returns when the job was last done; the zero time means never. The
	// scheduler asks when it starts, when the job is new, when the clock has jumped
	// and when a slot was missed by minutes. If a run was missed since, it runs the
	// job once. After an error it asks again, and the schedule goes on meanwhile.
	// Without Last no missed run is caught up.
	Last func(ctx context.Context) (time.Time, error)
	// New makes the object that does one run. It is called when the run has its
	// first turn.
	New func() Run
	// Retries is how often a failed run is tried again before the next slot. The
	// pauses grow, beginning with about Pause (default 10 s), twice as long for each run
	// in a row that failed before. Other jobs may run in the pauses.
	Retries int
	Pause   time.Duration
	// Timeout bounds a run with all its retries; 0 sets no bound. The time in which a
	// run waits for others does not count.
	Timeout time.Duration
}

// Run does a job once, with all its tries. Its methods are never called at the
// same time.
type Run interface {
	// Try does the work. Before it does anything expensive it takes the turn. After an
	// error marked by [Permanent] it is not tried again.
	Try(ctx context.Context, why Reason, turn *Turn) error
	// Done receives the result of the last try.
	Done(err error)
	// Free is called after each try, and after Done: from then on [Scheduler.Trigger]
	// accepts the job again.
	Free()
}

// State describes a job and its last run.
type State struct {
	Name     string
	Running  bool      // or pausing before its next try
	Waiting  bool      // for a room or its turn
	Next     time.Time // with its jitter; zero if no run is planned
	Started  time.Time // of the running or last run
	Ended    time.Time
	Err      error // of the last run that ended
	Failures int   // runs that failed in a row
	Attempt  int   // number of the current try, from 1
}

type permanentError struct{ error }

func (e permanentError) Unwrap() error { return e.error }

// Permanent marks an error that another try would only repeat. The error keeps
// its text and its chain; Permanent(nil) is nil.
func Permanent(err error) error {
	if err == nil {
		return nil
	}
	return permanentError{err}
}

// IsPermanent reports whether err, or one in its chain, was marked by [Permanent].
func IsPermanent(err error) bool {
	_, ok := errors.AsType[permanentError](err)
	return ok
}
