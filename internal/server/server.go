// Package server is the daemon's HTTP side: the API under /api/v1, health and
// metrics. It asks for everything through one small interface, [Backend], and
// can neither restore nor delete.
//
// One table of routes registers the handlers and makes the OpenAPI document, so
// the two cannot drift apart. docs/api.md is for those who call it.
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
// concurrently. Their errors are shown to callers, so they must hold no secret;
// a [backup.HintError] in one becomes the problem's hint.
type Backend interface {
	// Ready returns nil when the daemon guards its clusters, or why not. Anyone
	// who reaches the listener can read the answer.
	Ready() error
	Clusters() []Cluster
	// Snapshots returns at most limit snapshots of a cluster, the newest first,
	// from the one after the id after (empty: from the newest). The snapshot
	// called after may be gone.
	Snapshots(ctx context.Context, cluster, after string, limit int) ([]Snapshot, error)
	Snapshot(ctx context.Context, cluster, id string) (*SnapshotDetail, error)
	// Jobs returns running jobs and the last finished ones, the newest first.
	Jobs() []Job
	// Subscribe calls send with every change of a job until ctx is done. It may
	// return before. Send never blocks. A running server calls it once.
	Subscribe(ctx context.Context, send func(Job))
	// StartBackup and StartVerification return at once with the job. An id may
	// be Latest.
	StartBackup(cluster string) (Job, error)
	StartVerification(cluster, id string) (Job, error)
	Pin(ctx context.Context, cluster, id, reason string) error
	PrunePlan(ctx context.Context, cluster string) ([]PruneDecision, error)
}

// Latest stands for the id of the newest verified snapshot where one is to be
// verified.
const Latest = "latest"

// States of a [Cluster].
const (
	ClusterOK      = "ok"
	ClusterWarning = "warning"
	ClusterFailure = "failure"
)

// Cluster is how a guarded cluster stands.
type Cluster struct {
	Name       string            `json:"name"`
	Labels     map[string]string `json:"labels,omitempty"`
	Repository string            `json:"repository" jsonschema:"name of the repository in the configuration"`
	Schedule   string            `json:"schedule" jsonschema:"cron line of its backups"`
	// State is ok, warning or failure; Problem and Hint say what and what to do.
	State       string    `json:"state" jsonschema:"ok, warning or failure"`
	Problem     string    `json:"problem,omitempty" jsonschema:"what is wrong"`
	Hint        string    `json:"hint,omitempty" jsonschema:"what to do about it"`
	LastSuccess time.Time `json:"lastSuccess,omitzero" jsonschema:"start of the newest verified snapshot"`
	LastAttempt time.Time `json:"lastAttempt,omitzero"`
	NextRun     time.Time `json:"nextRun,omitzero"`
	Running     bool      `json:"running" jsonschema:"whether a job of this cluster is running"`
	Snapshot    string    `json:"snapshot,omitempty" jsonschema:"id of the newest verified snapshot"`
	Revision    int64     `json:"revision,omitempty" jsonschema:"revision of the newest verified snapshot"`
}

// Snapshot is one row of a listing.
type Snapshot struct {
	ID          string    `json:"id"`
	Time        time.Time `json:"time" jsonschema:"when it was begun"`
	Revision    int64     `json:"revision"`
	StoredBytes int64     `json:"storedBytes"`
	Suspect     bool      `json:"suspect" jsonschema:"whether something speaks against it; the manifest says what"`
	Pinned      string    `json:"pinned,omitempty" jsonschema:"why it is pinned, if it is"`
}

// SnapshotDetail is one snapshot with its manifest as it is stored.
type SnapshotDetail struct {
	Snapshot
	Manifest any `json:"manifest" jsonschema:"the manifest as it is stored; docs/format.md describes it"`
}

// States of a [Job].
const (
	JobRunning   = "running"
	JobSucceeded = "succeeded"
	JobSuspect   = "suspect" // a snapshot was stored, and something speaks against it
	JobSkipped   = "skipped" // there was nothing to do
	JobFailed    = "failed"
)

// Job is one run of something, with its progress.
type Job struct {
	ID       string    `json:"id"`
	Kind     string    `json:"kind" jsonschema:"backup, verify, prune or defragment"`
	Cluster  string    `json:"cluster"`
	Reason   string    `json:"reason" jsonschema:"scheduled, caught up or manual"`
	State    string    `json:"state" jsonschema:"running, succeeded, suspect, skipped or failed"`
	Started  time.Time `json:"started"`
	Ended    time.Time `json:"ended,omitzero"`
	Stage    string    `json:"stage,omitempty" jsonschema:"receive, store, inspect, compare or verify"`
	Done     int64     `json:"done" jsonschema:"how much of total the stage has done, in its own unit"`
	Total    int64     `json:"total" jsonschema:"0 where it is not known"`
	Snapshot string    `json:"snapshot,omitempty" jsonschema:"id of the snapshot it made or looked at"`
	Error    string    `json:"error,omitempty"`
}

// PruneDecision is what a prune would do to one snapshot, and why.
type PruneDecision struct {
	Snapshot
	Keep    bool     `json:"keep"`
	Reasons []string `json:"reasons"`
}

// ClusterList is the answer to GET /api/v1/clusters.
type ClusterList struct {
	Clusters []Cluster `json:"clusters"`
}

// SnapshotList is one page of a cluster's snapshots.
type SnapshotList struct {
	Snapshots []Snapshot `json:"snapshots"`
	Next      string     `json:"next,omitempty" jsonschema:"the parameter after for the next page; absent on the last one"`
}

// JobList is the answer to GET /api/v1/jobs.
type JobList struct {
	Jobs []Job `json:"jobs"`
}

// PrunePlan is what a prune would do now.
type PrunePlan struct {
	Decisions []PruneDecision `json:"decisions"`
}

// VerificationRequest says which snapshot to verify.
type VerificationRequest struct {
	Snapshot string `json:"snapshot" jsonschema:"a snapshot's id, or latest"`
}

// PinRequest says why a snapshot is to stay.
type PinRequest struct {
	Reason string `json:"reason" jsonschema:"why it must stay, in at most 500 characters"`
}
