// Package server is the daemon's HTTP side: the API under /api/v1, health and
// metrics. It asks for everything through one small interface, [Backend], and
// can neither restore nor delete.
package server

import (
	"context"
	"errors"
	"time"
)

// Errors a [Backend] returns.
var (
	ErrNotFound = errors.New("not found")
	ErrConflict = errors.New("conflict") // such a job is running already
)

// Backend is what the server asks of the daemon. Methods may be called
// concurrently.
type Backend interface {
	// Ready returns nil when the daemon guards its clusters, or why not.
	Ready() error
	Clusters() []Cluster
	// Snapshots returns at most limit snapshots of a cluster, the newest first,
	// from the one after the id after (empty: from the newest).
	Snapshots(ctx context.Context, cluster, after string, limit int) ([]Snapshot, error)
	Snapshot(ctx context.Context, cluster, id string) (*SnapshotDetail, error)
	// Jobs returns running jobs and the last finished ones, the newest first.
	Jobs() []Job
	// Subscribe calls send with every change of a job until ctx is done.
	Subscribe(ctx context.Context, send func(Job))
	// StartBackup and StartVerification return at once with the job.
	StartBackup(cluster string) (Job, error)
	StartVerification(cluster, id string) (Job, error)
	Pin(ctx context.Context, cluster, id, reason string) error
	PrunePlan(ctx context.Context, cluster string) ([]PruneDecision, error)
}

// Cluster is how a guarded cluster stands.
type Cluster struct {
	Name       string            `json:"name"`
	Labels     map[string]string `json:"labels,omitempty"`
	Repository string            `json:"repository"`
	Schedule   string            `json:"schedule"`
	// State is ok, warning or failure; Problem and Hint say what and what to do.
	State       string    `json:"state"`
	Problem     string    `json:"problem,omitempty"`
	Hint        string    `json:"hint,omitempty"`
	LastSuccess time.Time `json:"lastSuccess,omitzero"` // start of the newest verified snapshot
	LastAttempt time.Time `json:"lastAttempt,omitzero"`
	NextRun     time.Time `json:"nextRun,omitzero"`
	Running     bool      `json:"running"`
	Snapshot    string    `json:"snapshot,omitempty"` // newest verified
	Revision    int64     `json:"revision,omitempty"`
}

// Snapshot is one row of a listing.
type Snapshot struct {
	ID          string    `json:"id"`
	Time        time.Time `json:"time"`
	Revision    int64     `json:"revision"`
	StoredBytes int64     `json:"storedBytes"`
	Suspect     bool      `json:"suspect"`
	Pinned      string    `json:"pinned,omitempty"` // the reason
}

// SnapshotDetail is one snapshot with its manifest as it is stored.
type SnapshotDetail struct {
	Snapshot
	Manifest any `json:"manifest"`
}

// Job is one run of something, with its progress.
type Job struct {
	ID       string    `json:"id"`
	Kind     string    `json:"kind"` // backup, verify, prune, defragment
	Cluster  string    `json:"cluster"`
	Reason   string    `json:"reason"` // scheduled, caught up, manual
	State    string    `json:"state"`  // running, succeeded, suspect, skipped, failed
	Started  time.Time `json:"started"`
	Ended    time.Time `json:"ended,omitzero"`
	Stage    string    `json:"stage,omitempty"` // receive, store, inspect, compare, verify
	Done     int64     `json:"done"`            // of Total, in the stage's unit
	Total    int64     `json:"total"`
	Snapshot string    `json:"snapshot,omitempty"`
	Error    string    `json:"error,omitempty"`
}

// PruneDecision is what a prune would do to one snapshot, and why.
type PruneDecision struct {
	Snapshot
	Keep    bool     `json:"keep"`
	Reasons []string `json:"reasons"`
}
