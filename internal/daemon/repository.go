package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/server"
	"github.com/etcd-backupd/backupd/internal/snapshot"
	"github.com/etcd-backupd/backupd/internal/storage"
)

// refreshTime bounds one look at the repository: a listing of ten thousand
// snapshots takes a second or two, a store that is down tries for minutes.
const refreshTime = 20 * time.Second

// refresh reads what the repository says of the cluster. Its error is kept in
// the standing as well.
func (g *guard) refresh(ctx context.Context) error {
	outer := ctx
	ctx, cancel := context.WithTimeoutCause(ctx, refreshTime, fmt.Errorf("no answer within %v", refreshTime))
	defer cancel()
	id, err := g.identify(ctx)
	var c catalog
	var newest *backup.Manifest
	if id != "" {
		c, newest, err = g.look(ctx)
	}
	if outer.Err() != nil {
		return context.Cause(outer) // says nothing about the repository
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	s := &g.standing
	s.read, s.readErr = time.Now(), err
	if err != nil {
		return err
	}
	s.repository, s.catalog, s.newest = id, c, newest
	if newest != nil && newest.StartedAt.After(s.confirmed) {
		s.confirmed = newest.StartedAt
	}
	return nil
}

// identify returns the repository's id, which never changes, or "" where there is
// no repository yet: the first backup makes it.
func (g *guard) identify(ctx context.Context) (string, error) {
	if id := g.repositoryID(); id != "" {
		return id, nil
	}
	marker, err := storage.OpenRepository(ctx, g.store)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return marker.ID, err
}

// look walks through the listing, which tells everything but what the newest
// verified snapshot holds: only its manifest is read, and only once.
func (g *guard) look(ctx context.Context) (catalog, *backup.Manifest, error) {
	var c catalog
	var newest snapshot.Entry // verified
	for item, err := range snapshot.Catalog(ctx, g.store, g.conf.Name) {
		if err != nil {
			return c, nil, err
		}
		c.storedBytes += item.StoredBytes()
		switch {
		case !item.Manifest:
			continue
		case item.DataMissing() || item.Clash:
			c.damaged = item.Entry
		case item.Suspect:
			c.suspect++
		default:
			c.verified++
			newest = item.Entry
		}
		c.newest = item.Entry // the oldest come first
	}
	if newest.ID == "" {
		return c, nil, nil
	}
	g.mu.Lock()
	known := g.standing.newest
	g.mu.Unlock()
	if known != nil && known.ID == newest.ID {
		return c, known, nil
	}
	m, err := snapshot.Open(ctx, g.store, newest)
	if err != nil {
		return c, nil, fmt.Errorf("read newest snapshot: %w", err)
	}
	return c, m, nil
}

func (g *guard) pruner() *snapshot.Pruner {
	return &snapshot.Pruner{Store: g.store, Cluster: g.conf.Name, Policy: g.policy, Log: g.log}
}

// prune removes what the policy says. That it fails is told, and is no fault of
// the backup before it.
func (g *guard) prune(ctx context.Context) {
	p := g.pruner()
	plan, err := p.Plan(ctx)
	removed := 0
	if err == nil {
		var result *snapshot.PruneResult
		if result, err = p.Run(ctx, plan); result != nil {
			removed = len(result.Removed)
		}
	}
	if ctx.Err() != nil {
		return
	}
	g.daemon.metrics.prune(g.conf.Name, removed, err)
	if err != nil {
		g.log.Error("prune failed", "err", err)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.standing.pruneError = err; err == nil {
		g.standing.pruned = time.Now()
	}
}

// verify reads one snapshot back as a whole.
func (g *guard) verify(ctx context.Context, j *job, id string) error {
	v := &snapshot.Verifier{
		Store: g.store, Identities: g.identities, Spool: g.daemon.config().Daemon.Spool.Folder, Progress: j.progress,
	}
	m, err := g.verifyEntry(ctx, v, id)
	if errors.Is(err, context.Canceled) {
		j.end(server.JobFailed, "", err)
		return err
	}
	result := "ok"
	switch {
	case errors.Is(err, backup.ErrCorrupt):
		result = "defect"
	case err != nil:
		result = "failed"
	}
	g.daemon.metrics.verifications.WithLabelValues(g.conf.Name, result).Inc()
	g.mu.Lock()
	g.standing.verified, g.standing.defect = time.Now(), err
	g.mu.Unlock()
	state, snapshotID := server.JobSucceeded, ""
	if m != nil {
		snapshotID = string(m.ID)
	}
	if err != nil {
		state = server.JobFailed
		g.log.Error("verification failed", "snapshot", snapshotID, "err", err)
	}
	j.end(state, snapshotID, err)
	return err
}

func (g *guard) verifyEntry(ctx context.Context, v *snapshot.Verifier, id string) (*backup.Manifest, error) {
	e, err := snapshot.Resolve(ctx, g.store, g.conf.Name, id)
	if err != nil {
		return nil, fmt.Errorf("find the snapshot to verify: %w", err)
	}
	m, err := snapshot.Open(ctx, g.store, e)
	if err == nil && m.Encoding.Encryption != "" && len(g.identities) == 0 {
		v.Depth = snapshot.StoredOnly // only the stored bytes can be compared here
	}
	return v.Verify(ctx, e)
}

// observe counts what is asked of a repository.
func (d *Daemon) observe(s storage.Store, repository string) storage.Store {
	return storage.WithObserver(s, func(e storage.Event) { d.metrics.store(repository, e) })
}
