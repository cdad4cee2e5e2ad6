package daemon

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/snapshot"
	"github.com/etcd-backupd/backupd/internal/storage"
)

const (
	// refreshTime bounds one look at the repository: a listing of ten thousand
	// snapshots takes a second or two, a store that is down tries for minutes.
	refreshTime = 20 * time.Second
	// skew is how far ahead of ours another daemon's clock may be. What lies
	// further in the future was taken while a clock was wrong, and must not
	// stand for the present.
	skew = 5 * time.Minute
	// spares is how many of the newest verified snapshots are looked at for one
	// that can be read.
	spares = 5
)

// refresh reads what the repository says of the cluster. Its error is kept in
// the standing as well.
func (g *guard) refresh(ctx context.Context) error {
	g.known.refreshing.Lock()
	defer g.known.refreshing.Unlock()
	outer := ctx
	ctx, cancel := context.WithTimeoutCause(ctx, refreshTime, fmt.Errorf("no answer within %v", refreshTime))
	defer cancel()
	before := g.known.now()
	id, err := g.identify(ctx, before.repository)
	var l look
	if err == nil && id != "" {
		l, err = g.look(ctx, before)
		if err == nil {
			_, err = g.identify(ctx, id) // once more: one that went away meanwhile was listed as empty
		}
	}
	if outer.Err() != nil {
		return context.Cause(outer) // says nothing about the repository
	}
	g.known.change(func(s *standing) {
		if s.readErr = err; err != nil {
			return
		}
		s.repository, s.read = id, g.daemon.wall()
		s.saw(before, l, s.read)
	})
	return err
}

// saw takes over what a look at the repository told now, that began when before
// was known.
func (s *standing) saw(before standing, l look, now time.Time) {
	// What nobody can restore any more protects from nothing.
	if l.newest == nil || before.newest != nil && !l.listed[before.newest.ID] || s.confirmed.After(now.Add(skew)) {
		s.confirmed = time.Time{}
	}
	meanwhile := s.newest
	s.catalog, s.newest = l.catalog, l.newest
	if l.newest != nil {
		s.holds(l.newest)
	}
	if meanwhile != before.newest {
		s.holds(meanwhile)
	}
	for id := range before.defects {
		if !l.listed[id] {
			s.defects = with(s.defects, id, nil)
		}
	}
	for id, err := range l.damaged {
		s.defects = with(s.defects, id, err)
	}
}

// identify returns the repository's id, or "" where there is no repository yet:
// the first backup makes it. A repository that was known and is not there any
// more, or is another one, is an error: its disk may not be mounted.
func (g *guard) identify(ctx context.Context, known string) (string, error) {
	marker, err := storage.OpenRepository(ctx, g.store)
	switch {
	case errors.Is(err, fs.ErrNotExist) && known == "":
		return "", nil
	case errors.Is(err, fs.ErrNotExist):
		err = fmt.Errorf("repository %s is not at its address any more: %w", known, err)
	case err == nil && known != "" && marker.ID != known:
		err = fmt.Errorf("another repository (%s) is at the address of repository %s", marker.ID, known)
	default:
		return marker.ID, err
	}
	return "", backup.WithHint(err, "mount its disk or look who removed it; if it was replaced on purpose, restart the daemon")
}

// look is what one look at the repository told of the cluster.
type look struct {
	catalog catalog
	newest  *backup.Manifest            // verified and not known to be damaged
	listed  map[backup.SnapshotID]bool  // newest and defects, as known before
	damaged map[backup.SnapshotID]error // manifests
}

// look walks through the listing, which tells everything but what the newest
// verified snapshot holds: only its manifest is read, and only once.
func (g *guard) look(ctx context.Context, before standing) (look, error) {
	l := look{listed: map[backup.SnapshotID]bool{}, damaged: map[backup.SnapshotID]error{}}
	limit := g.daemon.wall().Add(skew)
	var good []snapshot.Entry // the newest of them
	for item, err := range snapshot.Catalog(ctx, g.store, g.conf.Name) {
		if err != nil {
			return l, err
		}
		l.catalog.storedBytes += item.StoredBytes()
		if !item.Manifest {
			continue
		}
		_, defect := before.defects[item.ID]
		if defect || before.newest != nil && before.newest.ID == item.ID {
			l.listed[item.ID] = true
		}
		if l.catalog.add(item, limit) && !defect {
			if good = append(good, item.Entry); len(good) > spares {
				good = slices.Delete(good, 0, 1)
			}
		}
	}
	var err error
	l.newest, err = g.readNewest(ctx, good, before.newest, l.damaged)
	return l, err
}

// add counts a snapshot, of which the oldest come first. It returns whether it
// is a good one by its name.
func (c *catalog) add(i snapshot.Item, limit time.Time) bool {
	if i.ID.Time().After(limit) {
		c.future = i.Entry
	} else {
		c.newest = i.Entry
	}
	switch {
	case i.DataMissing():
		c.missing = i.Entry
	case i.Clash:
		c.clash = i.Entry
	case i.Suspect:
		c.suspect++
	default:
		c.verified++
		return c.future != i.Entry
	}
	return false
}

// readNewest returns the manifest of the newest of entries that can be read, and
// adds those to damaged that are. It is nil where there is none.
func (g *guard) readNewest(ctx context.Context, entries []snapshot.Entry, known *backup.Manifest, damaged map[backup.SnapshotID]error) (*backup.Manifest, error) {
	for _, e := range slices.Backward(entries) {
		if known != nil && known.ID == e.ID {
			return known, nil
		}
		m, err := snapshot.Open(ctx, g.store, e)
		switch {
		case err == nil:
			return m, nil
		case errors.Is(err, backup.ErrCorrupt):
			damaged[e.ID] = err
		case !errors.Is(err, fs.ErrNotExist): // or pruned a moment ago
			return nil, fmt.Errorf("read newest snapshot: %w", err)
		}
	}
	return nil, nil
}

func (g *guard) pruner() *snapshot.Pruner {
	return &snapshot.Pruner{Store: g.store, Cluster: g.conf.Name, Policy: g.policy, Spool: g.daemon.spool(), Log: g.log}
}

// prune removes what the policy says, and returns how many snapshots that were.
// That it fails is told, and is no fault of the backup before it.
func (g *guard) prune(ctx context.Context) int {
	p := g.pruner()
	plan, err := p.Plan(ctx)
	removed := 0
	if err == nil {
		var result *snapshot.PruneResult
		if result, err = p.Run(ctx, plan); result != nil {
			removed = len(result.Removed)
		}
	}
	if err != nil && errors.Is(ctx.Err(), context.Canceled) {
		err = nil // the next one does the rest
	} else if err == nil {
		g.known.change(func(s *standing) { s.pruned = g.daemon.wall() })
	}
	g.daemon.metrics.prune(g.conf.Name, removed, err)
	if err != nil {
		g.log.Error("prune failed", "err", err)
	}
	g.known.change(func(s *standing) { s.pruneError = err })
	return removed
}

// observe counts what is asked of a repository.
func (d *Daemon) observe(s storage.Store, repository string) storage.Store {
	return storage.WithObserver(s, func(e storage.Event) { d.metrics.store(repository, e) })
}
