package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/cluster"
	"github.com/etcd-backupd/backupd/internal/codec"
	"github.com/etcd-backupd/backupd/internal/config"
	"github.com/etcd-backupd/backupd/internal/notify"
	"github.com/etcd-backupd/backupd/internal/retention"
	"github.com/etcd-backupd/backupd/internal/schedule"
	"github.com/etcd-backupd/backupd/internal/server"
	"github.com/etcd-backupd/backupd/internal/snapshot"
	"github.com/etcd-backupd/backupd/internal/storage"
)

// Kinds of jobs.
const (
	kindBackup     = "backup"
	kindVerify     = "verify"
	kindDefragment = "defragment"
)

// guard looks after one cluster.
type guard struct {
	daemon *Daemon
	conf   config.Cluster
	repo   config.Repository // as it was when the guard was made

	line       schedule.Line // of snapshots
	verifyLine schedule.Line
	defragLine schedule.Line
	policy     retention.Policy
	source     *cluster.Cluster
	store      storage.Store
	identities codec.Identities
	log        *slog.Logger
	since      time.Time

	mu       sync.Mutex // guards what follows
	standing standing
	awaited  *job // on the board already, for the next manual run
	inside   int  // jobs that run
	retired  bool // the connections end with the last of them
}

// enter is called when a job begins; it returns false when none may any more.
func (g *guard) enter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.retired {
		return false
	}
	g.inside++
	return true
}

func (g *guard) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.inside--; g.inside == 0 && g.retired {
		g.source.Close()
	}
}

// retire lets go of the guard once what it runs has ended.
func (g *guard) retire() {
	g.giveUp(errors.New("the cluster was taken out of the configuration"))
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.retired = true; g.inside == 0 {
		g.source.Close()
	}
}

// standing is what is known of a cluster's protection.
type standing struct {
	repository string    // its id; "" while it was never reached
	read       time.Time // when the repository was last read; zero: never
	readErr    error
	catalog    catalog
	newest     *backup.Manifest // the newest verified; nil: none

	// confirmed is the newest moment of which is known that a verified
	// snapshot holds everything the cluster had.
	confirmed time.Time

	attempted time.Time // when a backup last began
	failed    error     // of the last backup; nil when it was good
	phases    map[string]time.Duration

	verified   time.Time // when a snapshot was last verified by us
	defect     error     // what that found, or why it failed
	pruned     time.Time // when a prune last succeeded
	pruneError error
}

// catalog is what a listing of the cluster's snapshots tells.
type catalog struct {
	verified, suspect int
	storedBytes       int64
	newest            snapshot.Entry // the newest of all; empty: none
	damaged           snapshot.Entry // the newest whose data is not there; empty: none
}

func (g *guard) jobName(kind string) string { return kind + "/" + g.conf.Name }

// jobs are what the scheduler runs for this cluster, never two at once.
func (g *guard) jobs() []schedule.Job {
	name := g.conf.Name
	jobs := []schedule.Job{{
		Name: g.jobName(kindBackup), Group: name, Line: g.line, Jitter: g.conf.Snapshot.Jitter, Last: g.lastBackup,
		Run: g.backup, Done: g.backupDone, Retries: g.conf.Snapshot.Retries, Timeout: g.conf.Snapshot.Timeout,
	}}
	if !g.verifyLine.IsZero() {
		jobs = append(jobs, schedule.Job{
			Name: g.jobName(kindVerify), Group: name, Line: g.verifyLine,
			Run: func(ctx context.Context, why schedule.Reason) error {
				if !g.enter() {
					return nil
				}
				defer g.leave()
				return g.verify(ctx, g.daemon.board.begin(kindVerify, name, string(why)), snapshot.Latest)
			},
			Done: func(err error) { g.outcome(kindVerify, "", err) },
		})
	}
	if !g.defragLine.IsZero() {
		jobs = append(jobs, schedule.Job{
			Name: g.jobName(kindDefragment), Group: name, Line: g.defragLine, Run: g.defragment,
			Done: func(err error) { g.outcome(kindDefragment, "", err) },
		})
	}
	return jobs
}

// lastBackup tells the scheduler when the cluster was last protected, by what
// the repository says: a daemon that was down knows of nothing else.
func (g *guard) lastBackup(ctx context.Context) (time.Time, error) {
	g.refresh(ctx)
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.standing.confirmed, g.standing.readErr
}

// backup is the job of the scheduler.
func (g *guard) backup(ctx context.Context, why schedule.Reason) error {
	if !g.enter() {
		return nil
	}
	defer g.leave()
	_, _, err := g.slot(ctx, why)
	return err
}

// slot is one attempt to have a verified snapshot of the cluster as it is now.
// It returns what was taken, or why nothing was needed.
func (g *guard) slot(ctx context.Context, why schedule.Reason) (*backup.Manifest, string, error) {
	j := g.begin(why)
	g.tell(notify.Event{Kind: notify.Started, Job: kindBackup})
	m, skipped, err := g.attempt(ctx, j, why)
	switch {
	case err != nil:
		j.end(server.JobFailed, "", err)
	case skipped != "":
		g.log.Info("nothing to do", "reason", skipped)
		j.end(server.JobSkipped, "", nil)
	case !m.Verified():
		// Another attempt would store the same doubts once more.
		err = schedule.Permanent(backup.WithHint(backup.Corruptf("snapshot %s is stored, but suspect: %s", m.ID, m.Suspect[0]),
			"keep older snapshots; find out which member is right (etcdctl endpoint hashkv --cluster)"))
		j.end(server.JobSuspect, string(m.ID), err)
	default:
		j.end(server.JobSucceeded, string(m.ID), nil)
	}
	g.keep(j, m, skipped, err)
	return m, skipped, err
}

// begin puts the attempt on the board.
func (g *guard) begin(why schedule.Reason) *job {
	g.mu.Lock()
	g.standing.attempted = time.Now()
	g.mu.Unlock()
	if why == schedule.Manual {
		if j := g.expected(); j != nil {
			return j
		}
	}
	return g.daemon.board.begin(kindBackup, g.conf.Name, string(why))
}

// expect sets the board's entry of the next manual run, and returns false where
// one is awaited already.
func (g *guard) expect(j *job) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.awaited != nil {
		return false
	}
	g.awaited = j
	return true
}

// expected takes the awaited entry, or nil if there is none.
func (g *guard) expected() *job {
	g.mu.Lock()
	defer g.mu.Unlock()
	j := g.awaited
	g.awaited = nil
	return j
}

// giveUp ends a manual run that was awaited and will not come.
func (g *guard) giveUp(why error) {
	if j := g.expected(); j != nil {
		j.end(server.JobFailed, "", why)
	}
}

// attempt takes a snapshot unless there is a reason not to, which it returns.
func (g *guard) attempt(ctx context.Context, j *job, why schedule.Reason) (m *backup.Manifest, skipped string, err error) {
	down := g.refresh(ctx)
	if down != nil {
		// Not an end: the database can be received and kept until the store is back.
		g.log.Warn("repository cannot be read", "err", down)
	}
	taker, err := g.taker(j)
	if err != nil {
		return nil, "", err
	}
	// What waits in the spool needs no etcd, and is this daemon's whoever works.
	if m, err := g.storePending(ctx, taker, down); m != nil || err != nil {
		return m, "", err
	}
	survey, err := g.source.Survey(ctx)
	if err != nil {
		return nil, "", err
	}
	current := g.unchanged(survey)
	if g.conf.LocalEndpoint != "" && why != schedule.Manual {
		if other, err := g.worker(ctx, survey); err != nil || other != "" {
			return nil, other, err
		}
	}
	if current && why != schedule.Manual {
		return nil, fmt.Sprintf("the revision is %d as in the newest verified snapshot", survey.HighWater), nil
	}
	m, err = taker.Take(ctx)
	if err != nil {
		return nil, "", err
	}
	g.log.Info("snapshot stored", "snapshot", m.ID, "revision", int64(m.Revision), "verified", m.Verified(), "bytes", m.Stored.Bytes)
	g.prune(ctx)
	_ = g.refresh(ctx) // kept in the standing; the backup exists
	return m, "", nil
}

// storePending stores what earlier attempts left in the spool. What was received
// in this slot is the slot's snapshot: it is returned when it is stored, and
// while it cannot be, etcd is not asked for it once more.
func (g *guard) storePending(ctx context.Context, taker *snapshot.Taker, down error) (*backup.Manifest, error) {
	begun := time.Now().Add(-g.line.Shortest(time.Now()))
	var stored []*backup.Manifest
	err := down
	if down == nil {
		stored, err = taker.StorePending(ctx)
	}
	if err != nil {
		waiting, perr := snapshot.Pending(taker.Spool)
		if perr == nil && slices.ContainsFunc(waiting, func(p snapshot.PendingSpool) bool {
			return p.Cluster == g.conf.Name && p.Since.After(begun)
		}) {
			return nil, fmt.Errorf("the snapshot of this slot waits in the spool: %w", err)
		}
		g.log.Warn("what waits in the spool is not stored yet", "err", err)
	}
	for _, m := range stored {
		g.log.Info("snapshot stored from the spool", "snapshot", m.ID, "revision", int64(m.Revision), "verified", m.Verified())
	}
	if n := len(stored); n > 0 && stored[n-1].StartedAt.After(begun) {
		return stored[n-1], nil
	}
	return nil, nil
}

// unchanged tells whether the newest verified snapshot holds all keys that the
// cluster has, and is young enough to stand for it.
func (g *guard) unchanged(survey *cluster.Survey) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := &g.standing
	if s.readErr != nil || s.newest == nil || s.newest.ClusterID != survey.ClusterID || s.newest.Revision != survey.HighWater {
		return false
	}
	if s.catalog.newest.Suspect || time.Since(s.newest.StartedAt) >= g.conf.Snapshot.MaxAge {
		return false
	}
	s.confirmed = time.Now()
	return true
}

// worker returns why this slot is another daemon's, or "".
func (g *guard) worker(ctx context.Context, survey *cluster.Survey) (string, error) {
	own, err := g.source.Identify(ctx, g.conf.LocalEndpoint)
	if err != nil {
		return "", backup.WithHint(fmt.Errorf("ask the member beside this daemon who it is: %w", err), "local-endpoint must be a client URL of the etcd member beside this daemon")
	}
	if id := cluster.Worker(survey); id != own {
		return fmt.Sprintf("this slot belongs to the daemon beside member %s", id), nil
	}
	return "", nil
}

func (g *guard) taker(j *job) (*snapshot.Taker, error) {
	// Read again each time: recipients come and go without a reload.
	codec, err := g.repo.Codec()
	if err != nil {
		return nil, err
	}
	t := &snapshot.Taker{
		Source: g.source, Store: g.store, Cluster: g.conf.Name, Codec: codec, Tool: g.daemon.opts.Version.Tool,
		Spool: g.daemon.config().Daemon.Spool.Folder, SpoolLimit: g.daemon.config().Daemon.Spool.MaxBytes, KeepPending: true, Repository: g.repositoryID(),
		Log: g.log, Progress: j.progress,
	}
	if !g.conf.Snapshot.HashCheck {
		t.Hashes = snapshot.SkipHashes
	}
	return t, nil
}

// repositoryID is the repository's, once it was seen: what is received while the
// store is down waits for that one and no other.
func (g *guard) repositoryID() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.standing.repository
}

// keep keeps what an attempt told.
func (g *guard) keep(j *job, m *backup.Manifest, skipped string, err error) {
	result := "failed"
	switch {
	case m != nil && m.Verified():
		result = "verified"
	case m != nil:
		result = "suspect"
	case skipped != "":
		result = "skipped"
	}
	g.daemon.metrics.backup(g.conf.Name, result, m)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.standing.failed = err
	if m != nil {
		g.standing.phases = j.durations()
	}
}

// backupDone is told what became of a slot after all attempts.
func (g *guard) backupDone(err error) {
	g.mu.Lock()
	id := ""
	if err == nil && g.standing.newest != nil {
		id = string(g.standing.newest.ID)
	}
	g.mu.Unlock()
	g.outcome(kindBackup, id, err)
}

// outcome notifies of what became of a job.
func (g *guard) outcome(kind, snapshotID string, err error) {
	if errors.Is(err, context.Canceled) {
		return // the daemon is being stopped
	}
	e := notify.Event{Job: kind, Snapshot: snapshotID}
	if err != nil {
		e.Error, e.Hint = err.Error(), g.daemon.opts.Hint(err)
	}
	g.complete(&e)
	g.daemon.notifier.Outcome(e)
}

func (g *guard) tell(e notify.Event) {
	g.complete(&e)
	g.daemon.notifier.Notify(e)
}

func (g *guard) complete(e *notify.Event) {
	e.Cluster, e.Labels, e.Time = g.conf.Name, g.conf.Labels, time.Now().UTC()
}

func (g *guard) defragment(ctx context.Context, why schedule.Reason) error {
	if !g.enter() {
		return nil
	}
	defer g.leave()
	j := g.daemon.board.begin(kindDefragment, g.conf.Name, string(why))
	if g.conf.LocalEndpoint != "" {
		survey, err := g.source.Survey(ctx)
		other := ""
		if err == nil {
			other, err = g.worker(ctx, survey)
		}
		if err != nil {
			j.end(server.JobFailed, "", err)
			return err
		}
		if other != "" {
			j.end(server.JobSkipped, "", nil)
			return nil
		}
	}
	report, err := g.source.Defragment(ctx, cluster.DefragOptions{Threshold: g.conf.Defragment.Threshold})
	g.log.Info("defragmentation ended", "report", report, "err", err)
	if err != nil {
		j.end(server.JobFailed, "", err)
		return fmt.Errorf("defragment: %w", err)
	}
	j.end(server.JobSucceeded, "", nil)
	return nil
}
