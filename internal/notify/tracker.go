package notify

import "time"

// task is what fails or succeeds: a job of a cluster in a repository, or the
// certificate in a file.
type task struct{ job, repository, cluster, file string }

func (e *Event) task() task { return task{e.Job, e.Repository, e.Cluster, e.File} }

// trouble is a task that fails.
type trouble struct {
	kind  Kind
	since time.Time
	last  Event // the newest one; zero after a restart
}

// tracker knows which tasks fail, whoever was told of it.
type tracker map[task]trouble

// classify sets the kind of the event at the end of a job.
func (t tracker) classify(e Event) Event {
	before, failed := t[e.task()]
	if e.Error == "" {
		e.Kind = Succeeded
		if failed {
			e.Kind, e.Since, e.ends = Recovered, before.since, before.kind
			delete(t, e.task())
		}
		return e
	}
	if !e.Kind.trouble() {
		e.Kind = Failed
	}
	e.Since = e.Time
	if failed {
		e.Since = before.since
	}
	t[e.task()] = trouble{e.Kind, e.Since, e}
	return e
}
