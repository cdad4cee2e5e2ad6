package notify

import (
	"sync"
	"time"
)

// remindAfter is how often a failure that goes on is told.
const remindAfter = 24 * time.Hour

// tracker knows which jobs fail. It forgets when the process ends: a job that
// fails still is then told at once, and not told to have recovered if it does not.
type tracker struct {
	mu      sync.Mutex
	failing map[string]failure // by job and cluster
}

type failure struct{ since, told time.Time }

// judge sets what kind of event the end of a job is.
func (t *tracker) judge(e Event) Event {
	t.mu.Lock()
	defer t.mu.Unlock()
	key := e.Job + "/" + e.Cluster
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
	// A clock that was put back must not silence it for longer.
	age := e.Time.Sub(f.told).Abs()
	if e.repeat = failed && age < remindAfter; !e.repeat {
		f.told = e.Time
	}
	t.failing[key] = f
	e.Kind, e.Since = Failed, f.since
	return e
}
