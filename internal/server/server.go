// Package server is the daemon's HTTP side: the API under /api/v1, health and
// metrics. It gets everything through one small interface, [Backend], and can
// neither restore nor delete.
//
// One table of routes registers the handlers and makes the OpenAPI document, so
// the two cannot differ. docs/api.md describes the API for its callers.
package server

import (
	"context"
	"errors"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// Errors a [Backend] returns.
var (
	ErrNotFound = errors.New("not found")
	ErrConflict = errors.New("conflict") // such a job is already running, or the snapshot is pinned
)

// Backend is the daemon as the server needs it. Its methods may be called
// concurrently. Callers see their errors, so these must hold no secret; a
// [backup.HintError] in one becomes the problem's hint.
type Backend interface {
	// Ready returns nil if the daemon guards its clusters, or the reason why not.
	// Everyone who can reach the listener can read the answer.
	Ready() error
	Clusters() []Cluster
	// Snapshots returns at most limit snapshots of a cluster, the newest first. It
	// begins with the one that follows the id after, or with the newest if after is
	// empty. The snapshot with that id need not exist any longer.
	Snapshots(ctx context.Context, of Key, after string, limit int) ([]backup.Row, error)
	Snapshot(ctx context.Context, of Key, id string) (*SnapshotDetail, error)
	// Jobs returns the running and the last finished jobs, the newest first.
	Jobs() []Job
	// Subscribe calls send with every change of a job until ctx is done, or returns
	// earlier. send never blocks. A running server calls Subscribe once.
	Subscribe(ctx context.Context, send func(Job))
	// StartBackup and StartVerification start a job and return at once. The id may
	// be Latest.
	StartBackup(of Key) (Job, error)
	StartVerification(of Key, id string) (Job, error)
	Pin(ctx context.Context, of Key, id, reason string) error
	PrunePlan(ctx context.Context, of Key) ([]backup.PruneRow, error)
}

// Key names a guarded cluster by its repository and its name, as the
// configuration gives them. A cluster may be kept in several repositories.
type Key struct{ Repository, Cluster string }

// Latest, in place of an id, means the furthest snapshot of the cluster's history, as
// it does in every command.
const Latest = "latest"

// States of a [Cluster].
const (
	ClusterOK      = "ok"
	ClusterWarning = "warning"
	ClusterFailure = "failure"
)

// Cluster is the status of a guarded cluster: how one repository protects it.
type Cluster struct {
	Repository string            `json:"repository" jsonschema:"name of the repository in the configuration"`
	Name       string            `json:"cluster"`
	Labels     map[string]string `json:"labels,omitempty"`
	Schedule   string            `json:"schedule" jsonschema:"cron line of its backups"`
	// State is ok, warning or failure. Problem describes the problem and Hint its
	// solution.
	State   string `json:"state" jsonschema:"ok, warning or failure"`
	Problem string `json:"problem,omitempty" jsonschema:"what is wrong"`
	Hint    string `json:"hint,omitempty" jsonschema:"what to do about it"`
	// LastSuccess is the start of the newest verified snapshot, or of the last
	// slot that was skipped because nothing had changed since.
	LastSuccess time.Time `json:"lastSuccess,omitzero" jsonschema:"when the cluster was last known to be protected"`
	LastAttempt time.Time `json:"lastAttempt,omitzero"`
	NextRun     time.Time `json:"nextRun,omitzero"`
	Running     bool      `json:"running" jsonschema:"whether a backup of this cluster is running"`
	Snapshot    string    `json:"snapshot,omitempty" jsonschema:"id of the newest verified snapshot"`
	Revision    int64     `json:"revision,omitempty" jsonschema:"revision of the newest verified snapshot"`
	Pause       *Pause    `json:"pause,omitempty" jsonschema:"absent if the cluster is not paused"`
}

// Pause says until when no slot of a cluster runs.
type Pause struct {
	Until  time.Time `json:"until" jsonschema:"when the pause ends"`
	Reason string    `json:"reason" jsonschema:"why somebody has made it"`
	By     string    `json:"by,omitempty" jsonschema:"who made it"`
	At     time.Time `json:"at" jsonschema:"when it was made"`
}

// SnapshotDetail is one snapshot with its stored manifest.
type SnapshotDetail struct {
	backup.Row
	ReadAt         time.Time `json:"readAt,omitzero" jsonschema:"when a verification last found it whole"`
	ReadStoredOnly bool      `json:"readStoredOnly,omitempty" jsonschema:"whether that was of the stored bytes alone"`

	Manifest any `json:"manifest" jsonschema:"the stored manifest; docs/format.md describes it"`
}

// States of a [Job].
const (
	JobRunning     = "running"
	JobSucceeded   = "succeeded"
	JobUnconfirmed = "unconfirmed" // a snapshot was stored that no member was compared with
	JobSuspect     = "suspect"     // a snapshot was stored, but its content is not trusted
	JobSkipped     = "skipped"     // there was nothing to do
	JobFailed      = "failed"
)

// Job is one run, with its progress.
type Job struct {
	ID         string    `json:"id"`
	Kind       string    `json:"job" jsonschema:"backup, verify or defragment"`
	Repository string    `json:"repository" jsonschema:"name of the repository in the configuration"`
	Cluster    string    `json:"cluster"`
	Reason     string    `json:"reason" jsonschema:"scheduled, caught up or manual"`
	State      string    `json:"state" jsonschema:"running, succeeded, unconfirmed, suspect, skipped or failed"`
	Started    time.Time `json:"startedAt"`
	Ended      time.Time `json:"finishedAt,omitzero"`
	Stage      string    `json:"stage,omitempty" jsonschema:"wait, receive, store, inspect, compare, verify or mark"`
	Done       int64     `json:"done" jsonschema:"how much of total the stage has done, in its own unit"`
	Total      int64     `json:"total" jsonschema:"0 if it is not known"`
	Snapshot   string    `json:"snapshot,omitempty" jsonschema:"id of the snapshot that it stored or verified"`
	Error      string    `json:"error,omitempty"`
	Pause      *Pause    `json:"pause,omitempty" jsonschema:"the pause in which it was skipped, or asked for"`
}

// ClusterList is the answer to GET /api/v1/clusters.
type ClusterList struct {
	Clusters []Cluster `json:"clusters"`
}

// SnapshotList is one page of a cluster's snapshots.
type SnapshotList struct {
	Snapshots []backup.Row `json:"snapshots"`
	Next      string       `json:"next,omitempty" jsonschema:"the parameter after for the next page; absent on the last"`
}

// JobList is the answer to GET /api/v1/jobs.
type JobList struct {
	Jobs []Job `json:"jobs"`
}

// PrunePlan lists the decisions of a prune, if it ran now.
type PrunePlan struct {
	Decisions []backup.PruneRow `json:"snapshots"`
}

// VerificationRequest names the snapshot to verify.
type VerificationRequest struct {
	Snapshot string `json:"snapshot" jsonschema:"a snapshot's id, or latest"`
}

// PinRequest gives the reason of a pin.
type PinRequest struct {
	Reason string `json:"reason" jsonschema:"why the snapshot must stay, in at most 500 characters"`
}
