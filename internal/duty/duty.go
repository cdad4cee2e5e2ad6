// Package duty holds the work that recurs for a cluster: to back it up, to verify
// its stored snapshots, to defragment its members. A duty returns the result of
// one try as a value, an [Outcome]. The caller decides when to run a duty, and who
// hears of the result. The package also holds what is known of the protection of a
// cluster, and judges it: see [Backup.Health].
package duty

import (
	"context"
	"log/slog"
	"os"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/cluster"
	"github.com/etcd-backupd/backupd/internal/cluster/defrag"
	"github.com/etcd-backupd/backupd/internal/companion"
	"github.com/etcd-backupd/backupd/internal/health"
	"github.com/etcd-backupd/backupd/internal/repository/reread"
	"github.com/etcd-backupd/backupd/internal/schedule"
	"github.com/etcd-backupd/backupd/internal/spool"
	"github.com/etcd-backupd/backupd/internal/storage"
)

// Key names one protected cluster by the names of its repository and of the
// cluster in the configuration. A cluster may have snapshots in several
// repositories.
type Key struct{ Repository, Cluster string }

// String returns the key for logs and names of jobs.
func (k Key) String() string { return k.Repository + "/" + k.Cluster }

// Subject is the protected cluster that a duty works on.
type Subject struct {
	Key
	// Address are the flags of the command line that lead to the repository, for hints.
	Address string
	// Removal returns the command that removes an object of the repository by hand, for
	// hints.
	Removal func(key string) string
	// MayCreate allows a backup to make the repository if there is none. It never makes
	// one in the place of a repository that is known.
	MayCreate bool
	Etcd      *cluster.Cluster
	Store     storage.Store
	// Reach bounds the wait for the repository to answer at all; 0 means 20 s. See
	// [ReachWithin].
	Reach time.Duration
	Spool spool.Folder
	// Streams is shared by all clusters of a process; nil keeps nothing apart.
	Streams *defrag.Streams
	// LocalEndpoint is the member that this process is the sidecar of. It is empty
	// if the process is no sidecar. Sidecars divide the runs among them, except
	// those that are requested by hand.
	LocalEndpoint string
	// Lenient says that unconfirmed snapshots count as protection, because the
	// configuration has switched the comparison with the members off.
	Lenient bool
	// Rereading says how stored snapshots are verified by a schedule.
	Rereading reread.Policy
	Known     *Knowledge
	Log       *slog.Logger
	// Now is the wall clock: see [Knowledge].
	Now func() time.Time
}

// Run describes one try of a run of a duty.
type Run struct {
	Why schedule.Reason
	// Began is when the first try of the run began, or when the run was requested
	// by hand.
	Began    time.Time
	Progress backup.Progress
	// Turn waits until the run may do what is expensive: to receive, store or read
	// whole databases. Nil means at once.
	Turn func(context.Context) error
	// Started is called when a snapshot is going to be taken; nil is allowed.
	Started func()
	// Trouble is called while the try goes on, if it harms the cluster; nil is allowed.
	Trouble func(error)
	// Snapshot is a reference to the snapshot to verify. Empty means the one whose turn it
	// is: see [reread.Policy.Next].
	Snapshot string
}

// Result is the result of a try in one word.
type Result string

// Results.
const (
	Succeeded Result = "succeeded"
	// Unconfirmed: a snapshot was stored that no member was compared with. It is a
	// success, unless nobody knows either whether it holds all that the cluster had.
	Unconfirmed Result = "unconfirmed"
	Suspect     Result = "suspect" // a snapshot was stored, and something speaks against it
	// Unaccepted: a snapshot was stored, and nobody has accepted its history.
	Unaccepted Result = "unaccepted"
	// Incomplete: a snapshot was stored, but not all companion files that belong to it.
	Incomplete Result = "incomplete"
	Skipped    Result = "skipped" // nothing was needed: this counts as a success
	Passed     Result = "passed"  // another sidecar does the run, or there was nothing to do: this says nothing
	// Paused: somebody has paused the cluster: nothing was tried, and this says nothing.
	Paused Result = "paused"
	Failed Result = "failed"
)

// Outcome is the result of one try.
type Outcome struct {
	Result   Result
	Snapshot backup.SnapshotID // that was made or verified
	Manifest *backup.Manifest  // of a snapshot that was stored
	Reason   string            // why it was skipped, passed or paused, or is unconfirmed
	Err      error
	// Late are the snapshots of earlier runs that were stored in this try.
	Late []*backup.Manifest
	// Prune is the result of the prune that followed; nil if there was none.
	Prune *PruneOutcome
}

// PruneOutcome is the result of a prune.
type PruneOutcome struct {
	Removed int
	Err     error
	Stopped bool // before its end, because the process ends: there is no error
}

func failed(err error) Outcome { return Outcome{Result: Failed, Err: err} }

// stored is the outcome of a try that stored a snapshot.
func stored(m *backup.Manifest) Outcome {
	o := Outcome{Result: Succeeded, Snapshot: m.ID, Manifest: m}
	switch m.State() {
	case backup.Suspect:
		o.Result, o.Err = Suspect, doubted(m)
	case backup.Unconfirmed:
		o.Result, o.Reason, o.Err = Unconfirmed, m.Unconfirmed[0], health.NotCurrent(m)
	}
	if err := companion.Incomplete(m); err != nil && o.Err == nil {
		o.Result, o.Err = Incomplete, schedule.Permanent(err) // another try would miss the same files
	}
	return o
}

// doubted is the error for a snapshot that was stored as suspect. It is permanent:
// another try would store a snapshot with the same doubts.
func doubted(m *backup.Manifest) error {
	return schedule.Permanent(backup.WithHint(
		backup.Corruptf("snapshot %s is stored, but suspect: %s", m.ID, m.Suspect[0]),
		"keep older snapshots; find out which member is right (etcdctl endpoint hashkv --cluster)"))
}

// Host names this process in marks.
func Host(by string) string {
	host, err := os.Hostname()
	if err != nil {
		return by
	}
	return by + " on " + host
}
