// Package notify reports the results of jobs to people and machines: by webhook,
// chat, ping URL or command. It retries deliveries and never delays a backup.
package notify

import (
	"cmp"
	"fmt"
	"strings"
	"time"
)

// Kind is the kind of an event.
type Kind string

// Kinds of events.
const (
	Started   Kind = "start"
	Succeeded Kind = "success"
	Failed    Kind = "failure"
	Recovered Kind = "recovery" // the first success after a failure
)

// Event is the start or the end of a job.
type Event struct {
	Kind Kind   `json:"kind"`
	Job  string `json:"job"` // backup, verify or defragment
	// Repository and Cluster are the names of the configuration: a cluster may be
	// kept in several repositories.
	Repository string            `json:"repository"`
	Cluster    string            `json:"cluster"`
	Labels     map[string]string `json:"labels,omitempty"`
	Time       time.Time         `json:"time"`
	Snapshot   string            `json:"snapshot,omitempty"` // its id
	Revision   int64             `json:"revision,omitempty"`
	Error      string            `json:"error,omitempty"`
	Hint       string            `json:"hint,omitempty"`
	// Since is when the job began to fail; it is set for failures and recoveries.
	Since time.Time `json:"since,omitzero"`

	// repeat marks a failure that was reported not long ago.
	repeat bool
}

// jobs are the names of jobs in sentences.
var jobs = map[string]string{
	"backup": "Backup", "verify": "Verification", "defragment": "Defragmentation",
}

// String describes the event in a sentence or two.
func (e Event) String() string {
	job := cmp.Or(jobs[e.Job], e.Job)
	var b strings.Builder
	fmt.Fprintf(&b, "%s of cluster %s ", job, e.Cluster)
	if e.Repository != "" {
		fmt.Fprintf(&b, "in repository %s ", e.Repository)
	}
	switch e.Kind {
	case Started:
		b.WriteString("begins")
	case Succeeded:
		b.WriteString("succeeded")
	case Failed:
		fmt.Fprintf(&b, "failed: %s", e.Error)
	case Recovered:
		b.WriteString("works again")
	}
	if e.Kind != Failed && e.Snapshot != "" {
		fmt.Fprintf(&b, ": snapshot %s", e.Snapshot)
	}
	if e.Hint != "" {
		fmt.Fprintf(&b, "\nHint: %s", e.Hint)
	}
	if !e.Since.IsZero() && !e.Since.Equal(e.Time) {
		verb := "It has failed since"
		if e.Kind == Recovered {
			verb = "It had failed since"
		}
		fmt.Fprintf(&b, "\n%s %s.", verb, e.Since.UTC().Format("2006-01-02 15:04:05 MST"))
	}
	return b.String()
}
