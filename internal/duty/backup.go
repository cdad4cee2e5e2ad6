package duty

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/cluster"
	"github.com/etcd-backupd/backupd/internal/codec"
	"github.com/etcd-backupd/backupd/internal/companion"
	"github.com/etcd-backupd/backupd/internal/health"
	"github.com/etcd-backupd/backupd/internal/history"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/retention"
	"github.com/etcd-backupd/backupd/internal/schedule"
	"github.com/etcd-backupd/backupd/internal/snapshot"
	"github.com/etcd-backupd/backupd/internal/snapshot/compare"
)

// Backup is the duty to have a verified snapshot of the cluster as it is now.
type Backup struct {
	*Subject
	Line schedule.Line
	// Longest is the longest time between two slots. Jitter is the longest delay
	// of one.
	Longest, Jitter time.Duration
	// MaxAge is the greatest age of the newest snapshot. An older one is replaced
	// even if nothing has changed.
	MaxAge time.Duration
	Policy retention.Policy
	// Defragments says that the cluster has a schedule of defragmentations.
	Defragments bool
	// InForce returns the policy that counts now, and false if none does: the cluster was
	// taken out of the configuration, or has another repository there. Nil means Policy.
	InForce func() (retention.Policy, bool)
	Hashes  compare.Policy
	// Codec returns the encoding of new snapshots. It is called for each, because
	// recipients come and go.
	Codec func() (codec.Options, error)
	// Plain says that the configuration names no recipients.
	Plain bool
	Tool  string
	// Companions are files of this host that are stored with each snapshot.
	Companions companion.Files
}

// Do makes one try to have a verified snapshot of the cluster as it is now. A
// failure is known at once, because the next try may be far away.
func (b *Backup) Do(ctx context.Context, run Run) Outcome {
	o := b.do(ctx, run)
	if o.Result != Paused { // else nothing new is known
		b.Known.change(func(f *Facts) { f.Failed = o.Err })
	}
	return o
}

func (b *Backup) do(ctx context.Context, run Run) Outcome {
	overview, down := b.Look(ctx, b.Policy)
	rest := paused(b.Subject, run.Why, down)
	if rest == "" {
		b.Known.change(func(f *Facts) { f.Attempted = b.Now() })
	}
	if ctx.Err() != nil {
		return failed(context.Cause(ctx))
	}
	switch {
	case rest != "" && down != nil:
		return Outcome{Result: Paused, Reason: rest}
	case errors.Is(down, fs.ErrNotExist):
		// Nobody knows which repository a snapshot would wait for.
		return failed(fmt.Errorf("open repository: %w", down))
	case down != nil:
		// The try goes on: the database can wait in the spool until the store is back.
		b.Log.Warn("repository cannot be read", "err", down)
	}
	taker, err := b.taker(run)
	if err != nil {
		return failed(err)
	}
	// Pending snapshots are stored first. That needs no etcd, and a spool belongs
	// to this daemon even if another sidecar takes the snapshot.
	late := b.storePending(ctx, taker, overview, down, run)
	if late.own != nil || late.err != nil {
		return b.settle(ctx, late, late.outcome(ctx, b))
	}
	if rest != "" {
		b.awake(ctx) // else a member would seem to hang until the pause ends
		return b.settle(ctx, late, Outcome{Result: Paused, Reason: rest})
	}
	return b.settle(ctx, late, b.take(ctx, taker, late.overview, down, run))
}

// take takes a snapshot unless there is a reason not to.
func (b *Backup) take(
	ctx context.Context, taker *snapshot.Taker, overview *repository.Overview, down error, run Run,
) Outcome {
	b.awake(ctx)
	survey, err := b.Etcd.Survey(ctx)
	if err != nil {
		return failed(err)
	}
	// This holds even if another sidecar does the work.
	current := down == nil && run.Why != schedule.Manual && b.unchanged(ctx, overview, survey, b.Now()) &&
		b.Known.confirmed(overview.Newest().ID, b.Now())
	missed, _ := turn(b, b.Now())
	other, err := b.elsewhere(ctx, survey, run.Why, missed)
	switch {
	case err != nil:
		return failed(err)
	case other != "":
		return Outcome{Result: Passed, Reason: other}
	case current:
		if err := inQuestion(b.Subject, overview); err != nil {
			return failed(err)
		}
		if err := companion.Incomplete(overview.Newest()); err != nil { // and the same files are still missing
			return failed(schedule.Permanent(err))
		}
		return Outcome{Result: Skipped, Reason: fmt.Sprintf(
			"the revision is %d as in the newest %s snapshot, and nothing else has changed since",
			survey.HighWater, overview.Newest().State())}
	}
	if err := noQuorumYet(ctx, b.Subject, overview, survey, run); err != nil {
		return failed(err)
	}
	to, err := b.target(ctx, overview, down)
	if err != nil {
		return failed(err)
	}
	to.Turns = b.Known.turns(overview)
	if survey, err = b.turn(ctx, run, survey); err != nil {
		return failed(err)
	}
	if run.Started != nil {
		run.Started()
	}
	snapshot.LogSurvey(b.Log, survey)
	if h := unencrypted(b, overview, b.Now()); h.Level != health.OK {
		b.Log.Warn(h.Problem, "hint", h.Hint)
	}
	end, err := b.Streams.Stream(ctx, survey.ClusterID)
	if err != nil {
		return failed(err)
	}
	defer end()
	defer snapshot.Announce(ctx, to, Host(b.Tool), b.Log)()
	m, err := taker.Take(ctx, survey, to)
	var waits *snapshot.PendingError
	if errors.As(err, &waits) {
		b.Known.change(func(f *Facts) { f.Turns = f.Turns.Learn(&waits.Pending.Capture) })
	}
	if err != nil {
		return failed(err)
	}
	b.hold(m, "snapshot stored")
	return judged(ctx, b, m)
}

// hold notes and logs a snapshot that was stored.
func (s *Subject) hold(m *backup.Manifest, message string) {
	s.Known.holds(m, m.Verified() || s.Lenient && m.Uncompared(), s.Now())
	log, attributes := s.Log.Info, []any{"snapshot", m.ID, "revision", int64(m.Revision), "state", m.State(),
		"bytes", m.Stored.Bytes}
	if reasons := slices.Concat(m.Suspect, m.Unconfirmed); len(reasons) > 0 {
		log, attributes = s.Log.Warn, append(attributes, "reasons", reasons)
	}
	log(message, attributes...)
}

// unchanged reports whether the newest verified snapshot holds everything that the
// cluster has, and will not be too old before the next slot. In any doubt it does
// not: a cluster that was wiped and filled again may be as far as the old one was.
func (b *Backup) unchanged(ctx context.Context, o *repository.Overview, survey *cluster.Survey, now time.Time) bool {
	sound := survey.Sound()
	if o == nil || o.Newest() == nil || len(survey.Corrupt()) > 0 || cluster.Doubtful(survey.Candidates) ||
		len(sound.Candidates) == 0 {
		return false
	}
	m, newest := o.Newest(), o.Summary(now).Newest
	if !o.Trusts(newest.ID) || !history.Unchanged(m, survey.Position()) ||
		b.Line.Next(now).Sub(m.StartedAt) > b.MaxAge || b.Companions.Changed(ctx, m) {
		return false
	}
	// Members that are cut off, and have not noticed yet, have nothing new to tell.
	at, err := b.Etcd.Committed(ctx, sound)
	if err == nil && !history.Unchanged(m, at) {
		return false
	}
	if err == nil && b.Hashes == compare.Off {
		return true
	}
	var member backup.MemberID
	if err == nil {
		by := &compare.Comparer{Source: b.Etcd, Policy: b.Hashes, Turns: b.Known.turns(o)}
		member, err = by.Confirm(ctx, sound, m)
	}
	if err != nil {
		b.Log.Warn("the cluster seems unchanged, but that is not confirmed: a snapshot is taken", "err", err)
		return false
	}
	b.Known.change(func(f *Facts) { f.Turns = f.Turns.Confirmed(member, now) })
	return true
}

// noQuorumYet returns an error if an earlier try of the run has stored a snapshot that no
// quorum confirmed, and there is no quorum yet: another one would be no better.
func noQuorumYet(
	ctx context.Context, s *Subject, o *repository.Overview, survey *cluster.Survey, run Run,
) error {
	if o == nil {
		return nil
	}
	i := o.Summary(s.Now()).Newest
	if i == nil || i.State() != backup.Unconfirmed || o.Trusts(i.ID) ||
		i.ID.Time().Before(run.Began.Truncate(time.Second)) {
		return nil
	}
	if _, err := s.Etcd.Committed(ctx, survey); err != nil {
		err = fmt.Errorf("there is still no quorum since snapshot %s was stored: %w", i.ID, err)
		return backup.WithHint(err, health.NoQuorumHint)
	}
	return nil
}

// target returns where a snapshot goes: into the repository, or into the spool while a
// known repository is down. If there is no repository, one may be made here.
func (b *Backup) target(ctx context.Context, o *repository.Overview, down error) (snapshot.Target, error) {
	known := b.Known.Now().RepositoryID
	if down != nil {
		if known == "" || errors.Is(down, backup.ErrCorrupt) {
			return snapshot.Target{}, fmt.Errorf("open repository: %w", down)
		}
		b.Log.Warn("the repository is down, the snapshot will wait in the spool", "err", down)
		return snapshot.Target{Cluster: repository.At(b.Store, known).Cluster(b.Cluster), Down: down}, nil
	}
	if o != nil {
		return snapshot.Target{Cluster: repository.At(b.Store, known).Cluster(b.Cluster), Timelines: o.Timelines}, nil
	}
	repo, err := repository.Create(ctx, b.Store)
	if err != nil {
		return snapshot.Target{}, fmt.Errorf("open repository: %w", err)
	}
	if repo.Made() {
		b.Log.Warn("there was no repository, a new one was made", "id", repo.ID(), "repository flags", b.Address)
	}
	b.Known.change(func(f *Facts) { f.RepositoryID = repo.ID() })
	return snapshot.Target{Cluster: repo.Cluster(b.Cluster)}, nil
}

func (b *Backup) taker(run Run) (*snapshot.Taker, error) {
	codec, err := b.Codec()
	if err != nil {
		return nil, err
	}
	return &snapshot.Taker{
		Source: b.Etcd, Codec: codec, Spool: b.Spool, Hashes: b.Hashes, Tool: b.Tool, Log: b.Log,
		Progress: run.Progress, Companions: b.Companions,
	}, nil
}

// settle completes the outcome of a try. If snapshots were stored it prunes, by
// the overview that is known now.
func (b *Backup) settle(ctx context.Context, late late, o Outcome) Outcome {
	o.Late, o.Err = late.others, b.explain(o.Err)
	if o.Result == Skipped || o.Result == Passed || o.Result == Paused {
		b.Log.Info("nothing to do", "reason", o.Reason)
	}
	// Nothing is removed in a pause: what is new may be missing for long.
	if (o.Manifest != nil || len(o.Late) > 0) && b.Known.Now().Pauses.Now(b.Now()) == nil {
		o.Prune = newPruner(b).prune(ctx)
	}
	return o
}

// Ended is called after the last try of a run, with the outcome of that try and
// the error of the run, which may say more. It returns whether the end should be
// reported, and the newest verified snapshot. A run that was passed to another
// sidecar counts as a success only if the repository shows one: the other sidecar
// may be failing, and a report of success from here would hide that.
func (b *Backup) Ended(o Outcome, err error) (report bool, id backup.SnapshotID) {
	now := b.Now()
	b.Known.change(func(f *Facts) {
		f.Failed = err
		if newest := f.Newest(); err == nil && newest != nil {
			id = newest.ID
		}
		seen := f.ReadErr == nil && f.Overview != nil && !f.Confirmed.IsZero() &&
			f.Confirmed.After(f.Failing) && b.overdue(f, now).Level == health.OK
		report = err != nil || o.Result != Passed || seen
		switch {
		case err != nil && f.Failing.IsZero():
			f.Failing = now
		case err == nil && report:
			f.Failing = time.Time{}
		}
	})
	return report, id
}

// LastDone returns when the cluster was last protected, according to the repository.
// If that was never read the record of an earlier process tells it: a run that was
// missed is caught up, and its snapshot waits in the spool.
func (b *Backup) LastDone(ctx context.Context) (time.Time, error) {
	_, err := b.Look(ctx, b.Policy)
	f := b.Known.Now()
	if recalled := f.Read.IsZero() && !f.Confirmed.IsZero(); err != nil && (!recalled || ctx.Err() != nil) {
		return time.Time{}, err
	}
	return f.Confirmed, nil
}
