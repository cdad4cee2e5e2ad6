// Package notify tells people and machines what became of a backup: by
// webhook, chat, ping URL or command. Delivery is retried and never holds up a
// backup.
package notify

import "time"

// Kind is what happened.
type Kind string

// Kinds of events.
const (
	Started   Kind = "start"
	Succeeded Kind = "success"
	Failed    Kind = "failure"
	Recovered Kind = "recovery" // the first success after a failure
)

// Event is one thing to tell.
type Event struct {
	Kind     Kind              `json:"kind"`
	Job      string            `json:"job"` // backup, verify, prune, defragment
	Cluster  string            `json:"cluster"`
	Labels   map[string]string `json:"labels,omitempty"`
	Time     time.Time         `json:"time"`
	Snapshot string            `json:"snapshot,omitempty"` // its id
	Revision int64             `json:"revision,omitempty"`
	Error    string            `json:"error,omitempty"`
	Hint     string            `json:"hint,omitempty"`
	// Since is when the job first failed, of failures and recoveries.
	Since time.Time `json:"since,omitzero"`
}
