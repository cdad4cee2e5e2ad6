package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/duty"
	"github.com/etcd-backupd/backupd/internal/health"
	"github.com/etcd-backupd/backupd/internal/repository"
	"github.com/etcd-backupd/backupd/internal/repository/choice"
	"github.com/etcd-backupd/backupd/internal/repository/prune"
	"github.com/etcd-backupd/backupd/internal/server"
)

var _ server.Backend = (*backend)(nil)

// backend answers the server's questions.
type backend struct{ *Guards }

// Ready returns why some cluster is not protected, or nil.
func (b *backend) Ready() error {
	now := b.opts.Now()
	var problems []error
	for _, g := range b.fleet.all() {
		if h := g.backup.Health(now); h.Level == health.Failure {
			problems = append(problems, fmt.Errorf("cluster %s: %s", g.Key, h.Problem))
		}
	}
	return errors.Join(problems...)
}

// Clusters returns the status of each cluster.
func (b *backend) Clusters() []server.Cluster {
	now := b.opts.Now()
	plan := b.jobs.plan()
	out := []server.Cluster{}
	for _, g := range b.fleet.all() {
		out = append(out, b.status(g, now, plan[jobName(kindBackup, g.Key)].Next))
	}
	return out
}

// status is the status of the cluster, for the API.
func (b *backend) status(g *guard, now, next time.Time) server.Cluster {
	h, f := g.backup.Health(now), g.Known.Now()
	out := server.Cluster{
		Repository: g.Repository, Name: g.Cluster, Labels: g.conf.Labels, Schedule: g.backup.Line.String(),
		State: string(h.Level), Problem: h.Problem, Hint: h.Hint,
		LastSuccess: f.Confirmed.UTC(), LastAttempt: f.Attempted.UTC(), NextRun: f.Pauses.Due(next, now).UTC(),
		Running: b.jobs.board.Running(kindBackup, server.Key(g.Key)), Pause: pauseOf(g.Subject, now),
	}
	if h.Hint == "" && h.Err != nil {
		out.Hint = b.opts.Hint(h.Err)
	}
	if m := f.Newest(); m != nil {
		out.Snapshot, out.Revision = string(m.ID), int64(m.Revision)
	}
	return out
}

// pauseOf returns the pause of a cluster that goes on, or nil.
func pauseOf(s *duty.Subject, now time.Time) *server.Pause {
	p := s.Known.Now().Pauses.Now(now)
	if p == nil {
		return nil
	}
	return &server.Pause{Until: p.Until, Reason: p.Reason, By: p.By, At: p.At}
}

// Jobs returns the jobs that run and the last that ended, the newest first.
func (b *backend) Jobs() []server.Job { return b.jobs.board.List() }

// Subscribe calls send with every job that changes until ctx is done.
func (b *backend) Subscribe(ctx context.Context, send func(server.Job)) {
	b.jobs.board.Subscribe(ctx, send)
}

// Snapshots returns a part of a cluster's listing, the newest first.
func (b *backend) Snapshots(ctx context.Context, of server.Key, after string, limit int) ([]backup.Row, error) {
	g, err := b.fleet.guard(duty.Key(of))
	if err != nil {
		return nil, err
	}
	out := []backup.Row{}
	in, err := g.Open(ctx)
	if g.MayCreate && errors.Is(err, fs.ErrNotExist) {
		return out, nil // the first backup makes the repository
	}
	if err != nil {
		return nil, notFound(err)
	}
	items, err := in.Newest(ctx, limit, backup.SnapshotID(after), b.opts.Now())
	if err != nil {
		return nil, err
	}
	for _, i := range items {
		row, err := pinned(ctx, in, i.Row(b.opts.Now()))
		if err != nil {
			return nil, err
		}
		out = append(out, row)
	}
	return out, nil
}

// pinned adds the reason of the pin to a row.
func pinned(ctx context.Context, in *repository.Cluster, row backup.Row) (backup.Row, error) {
	if !row.Pinned {
		return row, nil
	}
	pin, err := in.Marks().Find(ctx, row.ID, backup.MarkPin)
	if row.Pinned = pin != nil; pin != nil { // else it was unpinned meanwhile
		row.PinReason = pin.Reason
	}
	return row, err
}

// Snapshot returns one snapshot with its manifest.
func (b *backend) Snapshot(ctx context.Context, of server.Key, id string) (*server.SnapshotDetail, error) {
	in, item, err := b.item(ctx, of, id)
	if err != nil {
		return nil, err
	}
	m, err := in.Manifest(ctx, item)
	if err != nil {
		return nil, notFound(err)
	}
	read := repository.Read{Item: item, Manifest: m}
	row, err := pinned(ctx, in, read.Row(b.opts.Now()))
	if err != nil {
		return nil, err
	}
	detail := &server.SnapshotDetail{Row: row, Manifest: m}
	detail.ReadAt, detail.ReadStoredOnly = repository.LastRead(&item)
	return detail, nil
}

// item finds a snapshot by its id, the beginning of one, or "latest".
func (b *backend) item(ctx context.Context, of server.Key, ref string) (*repository.Cluster, repository.Item, error) {
	g, err := b.fleet.guard(duty.Key(of))
	if err != nil {
		return nil, repository.Item{}, err
	}
	in, err := g.Open(ctx)
	if err != nil {
		return nil, repository.Item{}, notFound(err)
	}
	i, err := choice.FindIn(ctx, in, ref)
	return in, i, notFound(err)
}

func notFound(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", server.ErrNotFound, err)
	}
	return err
}

// StartBackup runs a cluster's backup now.
func (b *backend) StartBackup(of server.Key) (server.Job, error) {
	g, err := b.fleet.guard(duty.Key(of))
	if err != nil {
		return server.Job{}, err
	}
	return b.jobs.start(g.Key, kindBackup, "")
}

// StartVerification verifies one snapshot as soon as the cluster's other jobs
// let it.
func (b *backend) StartVerification(of server.Key, id string) (server.Job, error) {
	g, err := b.fleet.guard(duty.Key(of))
	if err != nil {
		return server.Job{}, err
	}
	if id != server.Latest {
		if _, err := backup.ParseSnapshotID(id); err != nil {
			return server.Job{}, fmt.Errorf("%w: %w", server.ErrNotFound, err)
		}
	}
	return b.jobs.start(g.Key, kindVerify, id)
}

// Pin keeps a snapshot from being pruned.
func (b *backend) Pin(ctx context.Context, of server.Key, id, reason string) error {
	in, item, err := b.item(ctx, of, id)
	if err != nil {
		return err
	}
	// Who asked is known to the server alone.
	err = in.Marks().Pin(ctx, item, reason, duty.Host("API"))
	if errors.As(err, new(*repository.MarkedError)) {
		return fmt.Errorf("%w: %w", server.ErrConflict, err)
	}
	return notFound(err)
}

// PrunePlan returns what a prune would do now.
func (b *backend) PrunePlan(ctx context.Context, of server.Key) ([]backup.PruneRow, error) {
	g, err := b.fleet.guard(duty.Key(of))
	if err != nil {
		return nil, err
	}
	out := []backup.PruneRow{}
	in, err := g.Open(ctx)
	if errors.Is(err, fs.ErrNotExist) {
		return out, nil
	}
	if err != nil {
		return nil, err
	}
	now, policy := b.opts.Now(), g.backup.Policy
	o, err := in.Look(ctx, prune.Vouch(policy), g.Known.Now().Overview, now)
	if err != nil {
		return nil, err
	}
	plan, err := prune.NewPlan(o, policy, now)
	if err != nil {
		return nil, err
	}
	for _, p := range plan.Decisions {
		out = append(out, p.Row(now))
	}
	return out, nil
}

// summary returns one line for 'systemctl status'.
func (b *backend) summary() string {
	good, paused, all := 0, 0, b.Clusters()
	for _, c := range all {
		if c.State == "ok" {
			good++
		}
		if c.Pause != nil {
			paused++
		}
	}
	text := fmt.Sprintf("protected clusters: %d of %d", good, len(all))
	if paused > 0 {
		text += fmt.Sprintf(", paused: %d", paused)
	}
	return text
}
