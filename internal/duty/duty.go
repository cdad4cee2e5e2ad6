// Package duty is what has to be done for a cluster again and again: back it up,
// verify what is stored, defragment its members. A duty says what one run came to
// as a value, an [Outcome]; who runs it, when, and who hears of it is the
// caller's business. What is known of a cluster's protection, and the judgement
// of it, are here too: see [Health].
package duty

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/cluster"
	"github.com/etcd-backupd/backupd/internal/schedule"
	"github.com/etcd-backupd/backupd/internal/spool"
	"github.com/etcd-backupd/backupd/internal/storage"
)

// Key names one protected cluster: the repository and the cluster in it, as the
// configuration names them. A cluster may be kept in several repositories.
type Key struct{ Repository, Cluster string }

// String is the key in logs and names of jobs.
func (k Key) String() string { return k.Repository + "/" + k.Cluster }

// Subject is what all duties of one protected cluster work on.
type Subject struct {
	Key
	Etcd  *cluster.Cluster
	Store storage.Store
	Spool spool.Folder
	// LocalEndpoint is the member that this process is the sidecar of; empty where
	// it is alone. Then runs that are not asked for by hand are divided among the
	// sidecars.
	LocalEndpoint string
	Known         *Knowledge
	Log           *slog.Logger
	// Now is the wall clock: see [Knowledge].
	Now func() time.Time
}

// Run is one try of a duty.
type Run struct {
	Why schedule.Reason
	// Began is when the first try of the run began, or the run was asked for by hand.
	Began    time.Time
	Progress backup.Progress
	// Started is called when a snapshot is going to be taken; nil is allowed.
	Started func()
	// Snapshot refers to the one to verify; empty means the newest.
	Snapshot string
}

// Result says in a word what a run came to.
type Result string

// Results.
const (
	Succeeded Result = "succeeded"
	Suspect   Result = "suspect" // a snapshot was stored, and something speaks against it
	Skipped   Result = "skipped" // nothing is needed, and that is as good as done
	Passed    Result = "passed"  // this run was another's, or there was nothing to do: it says nothing
	Failed    Result = "failed"
)

// Outcome is what one run came to.
type Outcome struct {
	Result   Result
	Snapshot backup.SnapshotID // that it made or looked at
	Manifest *backup.Manifest  // of a snapshot that was stored
	Reason   string            // why it was skipped or passed
	Err      error
	// Late are snapshots of earlier runs that were stored now.
	Late []*backup.Manifest
	// Prune is what became of the prune that followed; nil: there was none.
	Prune *PruneOutcome
}

// PruneOutcome is what became of a prune.
type PruneOutcome struct {
	Removed int
	Err     error
}

func failed(err error) Outcome { return Outcome{Result: Failed, Err: err} }

// stored is the outcome of a run that has a snapshot.
func stored(m *backup.Manifest) Outcome {
	o := Outcome{Result: Succeeded, Snapshot: m.ID, Manifest: m}
	if !m.Verified() {
		o.Result, o.Err = Suspect, doubted(m)
	}
	return o
}

// doubted is the error of a snapshot that is stored, but in doubt. Another try
// would store the same doubts once more.
func doubted(m *backup.Manifest) error {
	return schedule.Permanent(backup.WithHint(
		backup.Corruptf("snapshot %s is stored, but suspect: %s", m.ID, m.Suspect[0]),
		"keep older snapshots; find out which member is right (etcdctl endpoint hashkv --cluster)"))
}

// elsewhere returns why a run is another sidecar's, or "".
func (s *Subject) elsewhere(ctx context.Context, survey *cluster.Survey, why schedule.Reason) (string, error) {
	if s.LocalEndpoint == "" || why == schedule.Manual {
		return "", nil
	}
	id := cluster.Worker(survey)
	if id == 0 {
		return "", nil // no member is preferred, so all work rather than none
	}
	own, err := s.Etcd.Identify(ctx, s.LocalEndpoint)
	if err != nil {
		return "", backup.WithHint(fmt.Errorf("ask the member beside this daemon who it is: %w", err),
			"local-endpoint must be a client URL of the etcd member beside this daemon")
	}
	if id != own {
		return fmt.Sprintf("this slot belongs to the daemon beside member %s", id), nil
	}
	return "", nil
}

// Host names this process in marks.
func Host(by string) string {
	host, err := os.Hostname()
	if err != nil {
		return by
	}
	return by + " on " + host
}
