package daemon

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/server"
	"github.com/etcd-backupd/backupd/internal/snapshot"
)

// The daemon is what its server asks.
var _ server.Backend = (*Daemon)(nil)

// Ready returns why some cluster is not protected, or nil.
func (d *Daemon) Ready() error {
	now := d.opts.Now()
	var problems []error
	for _, g := range d.all() {
		if h := g.judge(now); h.state == server.ClusterFailure {
			problems = append(problems, fmt.Errorf("cluster %s: %s", g.conf.Name, h.problem))
		}
	}
	return errors.Join(problems...)
}

// Clusters returns how each cluster stands.
func (d *Daemon) Clusters() []server.Cluster {
	now := d.opts.Now()
	plan := d.plan()
	out := []server.Cluster{}
	for _, g := range d.all() {
		out = append(out, g.status(now, plan))
	}
	return out
}

// Jobs returns the jobs that run and the last that ended, the newest first.
func (d *Daemon) Jobs() []server.Job { return d.board.list() }

// Subscribe calls send with every job that changes until ctx is done.
func (d *Daemon) Subscribe(ctx context.Context, send func(server.Job)) { d.board.subscribe(ctx, send) }

// Snapshots returns a part of a cluster's listing, the newest first.
func (d *Daemon) Snapshots(ctx context.Context, cluster, after string, limit int) ([]server.Snapshot, error) {
	g, err := d.find(cluster)
	if err != nil {
		return nil, err
	}
	// The listing is in the order of time, and the end of it is asked for.
	pins, err := snapshot.Pins(ctx, g.store, cluster)
	if err != nil {
		return nil, err
	}
	out := []server.Snapshot{}
	for item, err := range snapshot.Catalog(ctx, g.store, cluster) {
		if err != nil {
			return nil, err
		}
		if !item.Manifest {
			continue
		}
		if after != "" && compareAge(item.ID, backup.SnapshotID(after)) >= 0 {
			break
		}
		if out = append(out, row(item, pins)); len(out) > 2*limit {
			out = slices.Delete(out, 0, len(out)-limit)
		}
	}
	out = out[max(0, len(out)-limit):]
	slices.Reverse(out)
	return out, nil
}

// compareAge orders ids as the catalogue does. Text would not do: revisions have
// no leading zeros.
func compareAge(a, b backup.SnapshotID) int {
	return cmp.Or(a.Time().Compare(b.Time()), cmp.Compare(a.Revision(), b.Revision()), cmp.Compare(a, b))
}

func row(i snapshot.Item, pins map[backup.SnapshotID]snapshot.PinRecord) server.Snapshot {
	return server.Snapshot{
		ID: string(i.ID), Time: i.ID.Time(), Revision: int64(i.ID.Revision()),
		StoredBytes: i.StoredBytes(), Suspect: i.Suspect, Pinned: pins[i.ID].Reason,
	}
}

// Snapshot returns one snapshot with its manifest.
func (d *Daemon) Snapshot(ctx context.Context, cluster, id string) (*server.SnapshotDetail, error) {
	g, e, err := d.entry(ctx, cluster, id)
	if err != nil {
		return nil, err
	}
	m, err := snapshot.Open(ctx, g.store, e)
	if err != nil {
		return nil, notFound(err)
	}
	pins, err := snapshot.Pins(ctx, g.store, cluster)
	if err != nil {
		return nil, err
	}
	return &server.SnapshotDetail{Manifest: m, Snapshot: server.Snapshot{
		ID: string(m.ID), Time: m.ID.Time(), Revision: int64(m.Revision), StoredBytes: m.Stored.Bytes,
		Suspect: !m.Verified(), Pinned: pins[m.ID].Reason,
	}}, nil
}

// entry finds a snapshot by its id, the beginning of one, or "latest".
func (d *Daemon) entry(ctx context.Context, cluster, id string) (*guard, snapshot.Entry, error) {
	g, err := d.find(cluster)
	if err != nil {
		return nil, snapshot.Entry{}, err
	}
	e, err := snapshot.Resolve(ctx, g.store, cluster, id)
	return g, e, notFound(err)
}

func notFound(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", server.ErrNotFound, err)
	}
	return err
}

// StartBackup runs a cluster's backup now.
func (d *Daemon) StartBackup(cluster string) (server.Job, error) {
	g, err := d.find(cluster)
	if err != nil {
		return server.Job{}, err
	}
	return g.askFor(kindBackup, "")
}

// StartVerification verifies one snapshot as soon as the cluster's other jobs
// let it.
func (d *Daemon) StartVerification(cluster, id string) (server.Job, error) {
	g, err := d.find(cluster)
	if err != nil {
		return server.Job{}, err
	}
	if id != server.Latest {
		if _, err := backup.ParseSnapshotID(id); err != nil {
			return server.Job{}, fmt.Errorf("%w: %w", server.ErrNotFound, err)
		}
	}
	return g.askFor(kindVerify, id)
}

// Pin keeps a snapshot from being pruned.
func (d *Daemon) Pin(ctx context.Context, cluster, id, reason string) error {
	g, e, err := d.entry(ctx, cluster, id)
	if err != nil {
		return err
	}
	return notFound(snapshot.Pin(ctx, g.store, e, reason, pinnedBy()))
}

// pinnedBy tells where a pin came from: who asked is known to the server alone.
func pinnedBy() string {
	host, err := os.Hostname()
	if err != nil {
		return "API"
	}
	return "API on " + host
}

// PrunePlan returns what a prune would do now.
func (d *Daemon) PrunePlan(ctx context.Context, cluster string) ([]server.PruneDecision, error) {
	g, err := d.find(cluster)
	if err != nil {
		return nil, err
	}
	plan, err := g.pruner().Plan(ctx)
	if err != nil {
		return nil, err
	}
	out := []server.PruneDecision{}
	for _, p := range plan.Decisions {
		out = append(out, server.PruneDecision{Keep: p.Keep, Reasons: p.Reasons, Snapshot: server.Snapshot{
			ID: string(p.ID), Time: p.ID.Time(), Revision: int64(p.ID.Revision()), StoredBytes: p.StoredBytes, Suspect: p.Suspect, Pinned: p.Pinned,
		}})
	}
	return out, nil
}
