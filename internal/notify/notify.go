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
	Recovered Kind = "recovery" // the first success after a trouble

	// PruneFailed: old snapshots could not be removed.
	PruneFailed Kind = "prune-failure"
	// NewHistory: the cluster's history is in question, and the backup fails until
	// somebody has accepted one.
	NewHistory Kind = "new-history"
	// CertificateExpiring: a certificate that the configuration names expires soon, or
	// has.
	CertificateExpiring Kind = "certificate-expiring"
)

// trouble reports whether something goes on to be wrong after an event of the kind,
// until a recovery.
func (k Kind) trouble() bool {
	return k == Failed || k == PruneFailed || k == NewHistory || k == CertificateExpiring
}

// Event is the start or the end of a job, or what was found about a certificate.
type Event struct {
	Kind Kind   `json:"kind"`
	Job  string `json:"job"` // backup, verify, defragment, prune or certificate
	// Repository and Cluster are the names of the configuration: a cluster may be
	// kept in several repositories. They are empty for a certificate that does not
	// belong to one cluster alone.
	Repository string            `json:"repository"`
	Cluster    string            `json:"cluster"`
	Labels     map[string]string `json:"labels,omitempty"`
	Time       time.Time         `json:"time"`
	Snapshot   string            `json:"snapshot,omitempty"` // its id
	Revision   int64             `json:"revision,omitempty"`
	Error      string            `json:"error,omitempty"`
	Hint       string            `json:"hint,omitempty"`
	// Since is when the job began to fail; it is set for troubles and recoveries.
	Since time.Time `json:"since,omitzero"`
	// File holds the certificate, and Expires is when it expires.
	File    string    `json:"file,omitempty"`
	Expires time.Time `json:"expires,omitzero"`

	// ends is the kind of the trouble that a recovery ends.
	ends Kind
}

// quiet reports whether the success of a job is no event, for nobody counts on it.
func (e *Event) quiet() bool {
	return e.Kind == Succeeded && (e.Job == "prune" || e.Job == "certificate")
}

const (
	// remindAfter is how often a lasting trouble is reported.
	remindAfter = 24 * time.Hour
	// A certificate is often renewed by a machine, late.
	remindOfCertificate = 7 * remindAfter
)

func (e *Event) remindAfter() time.Duration {
	if e.Kind == CertificateExpiring && e.Expires.Sub(e.Time) > remindOfCertificate {
		return remindOfCertificate
	}
	return remindAfter
}

// jobs are the names of jobs in sentences.
var jobs = map[string]string{
	"backup": "Backup", "verify": "Verification", "defragment": "Defragmentation",
	"prune": "Removal of old snapshots", "certificate": "Certificate",
}

// String describes the event in a few sentences.
func (e Event) String() string {
	var b strings.Builder
	b.WriteString(e.subject())
	switch e.Kind {
	case Started:
		b.WriteString(" begins")
	case Succeeded:
		b.WriteString(" succeeded")
	case Failed, PruneFailed:
		b.WriteString(" failed: " + e.Error)
	case NewHistory:
		b.WriteString(" found a history that nobody has accepted: " + e.Error)
	case CertificateExpiring:
		b.WriteString(" must be renewed: " + e.Error)
	case Recovered:
		b.WriteString(" works again")
	}
	if !e.Kind.trouble() && e.Snapshot != "" {
		b.WriteString(": snapshot " + e.Snapshot)
	}
	if e.Hint != "" {
		b.WriteString("\nHint: " + e.Hint)
	}
	if !e.Since.IsZero() && !e.Since.Equal(e.Time) && e.Kind != CertificateExpiring {
		verb := "It has failed since"
		if e.Kind == Recovered {
			verb = "It had failed since"
		}
		fmt.Fprintf(&b, "\n%s %s.", verb, e.Since.UTC().Format("2006-01-02 15:04:05 MST"))
	}
	return b.String()
}

// line describes the event in one line, without the hint.
func (e Event) line() string {
	e.Hint = ""
	return strings.NewReplacer(":\n", ": ", "\n", "; ").Replace(e.String())
}

// subject names what the event is about.
func (e Event) subject() string {
	out := cmp.Or(jobs[e.Job], e.Job)
	if e.File != "" {
		out += " " + e.File
	}
	if e.Cluster != "" {
		out += " of cluster " + e.Cluster
	}
	if e.Repository != "" {
		out += " in repository " + e.Repository
	}
	return out
}
