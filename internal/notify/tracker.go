package notify

import (
	"sync"
	"time"
)

// remindAfter is how often a lasting failure is reported.
const remindAfter = 24 * time.Hour

// tracker remembers which jobs fail, until the process ends. After a restart a job
// that still fails is reported again; a recovery during the restart is not
// reported.
type tracker struct {
	mu      sync.Mutex
	failing map[task]failure
}

// task is what fails or succeeds: a job of a cluster in a repository.
type task struct{ job, repository, cluster string }

type failure struct{ since, reported time.Time }

// classify sets the kind of the event at the end of a job.
func (t *tracker) classify(e Event) Event {
	t.mu.Lock()
	defer t.mu.Unlock()
	key := task{e.Job, e.Repository, e.Cluster}
	f, failed := t.failing[key]
	if e.Error == "" {
		e.Kind = Succeeded
		if failed {
			e.Kind, e.Since = Recovered, f.since
			delete(t.failing, key)
		}
		return e
	}
	if !failed {
		f.since = e.Time
	}
	// A clock that was set back must not delay the next report.
	age := e.Time.Sub(f.reported).Abs()
	if e.repeat = failed && age < remindAfter; !e.repeat {
		f.reported = e.Time
	}
	t.failing[key] = f
	e.Kind, e.Since = Failed, f.since
	return e
}
