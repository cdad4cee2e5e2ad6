package daemon

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"

	"github.com/etcd-backupd/backupd/internal/cluster"
	"github.com/etcd-backupd/backupd/internal/codec"
	"github.com/etcd-backupd/backupd/internal/config"
	"github.com/etcd-backupd/backupd/internal/schedule"
	"github.com/etcd-backupd/backupd/internal/storage"
)

// newGuards makes the guards of a configuration. Those of old whose part of it
// has not changed are taken over as they are: what they know and what they run
// goes on.
func (d *Daemon) newGuards(ctx context.Context, conf *config.Config, old []*guard) ([]*guard, error) {
	stores, err := d.openRepositories(ctx, conf)
	if err != nil {
		return nil, err
	}
	var out []*guard
	for _, c := range conf.Clusters {
		repo := conf.Repositories[c.Repository]
		i := slices.IndexFunc(old, func(g *guard) bool {
			return reflect.DeepEqual(g.conf, c) && reflect.DeepEqual(g.repo, repo)
		})
		if i >= 0 {
			out = append(out, old[i])
			continue
		}
		g, err := d.newGuard(c, repo, stores[c.Repository])
		if err != nil {
			closeNew(out, old)
			return nil, fmt.Errorf("cluster %s: %w", c.Name, err)
		}
		g.inherit(old)
		out = append(out, g)
	}
	return out, nil
}

// inherit takes over the record of the guard of the same cluster in the same
// place.
func (g *guard) inherit(old []*guard) {
	for _, before := range old {
		if before.conf.Name != g.conf.Name || !reflect.DeepEqual(before.repo, g.repo) {
			continue
		}
		g.known = before.known
	}
}

// openRepositories opens each repository once, for all its clusters.
func (d *Daemon) openRepositories(ctx context.Context, conf *config.Config) (map[string]storage.Store, error) {
	out := map[string]storage.Store{}
	for _, name := range slices.Sorted(maps.Keys(conf.Repositories)) {
		repo := conf.Repositories[name]
		s, err := repo.Open(ctx, d.log.With("repository", name))
		if err != nil {
			return nil, fmt.Errorf("repository %s: %w", name, err)
		}
		out[name] = d.observe(s, name)
	}
	return out, nil
}

func (d *Daemon) newGuard(c config.Cluster, repo config.Repository, store storage.Store) (*guard, error) {
	g := &guard{
		daemon: d, conf: c, repo: repo, store: store, policy: c.Retention.Policy(),
		log: d.log.With("cluster", c.Name), known: newRecord(d.wall()),
	}
	var err error
	if g.line, err = c.Snapshot.Line(); err != nil {
		return nil, err
	}
	g.longest = g.line.Longest(d.opts.Now())
	if g.verifyLine, err = c.Verify.Line(); err != nil {
		return nil, err
	}
	if g.defragLine, err = c.Defragment.Line(); err != nil {
		return nil, err
	}
	if _, err = repo.Codec(); err != nil {
		return nil, err
	}
	if g.identities, err = codec.ReadIdentities(c.Verify.IdentityFiles); err != nil {
		return nil, err
	}
	conf, err := c.ClientConfig()
	if err != nil {
		return nil, err
	}
	conf.Log = g.log
	if g.source, err = cluster.New(conf); err != nil {
		return nil, err
	}
	return g, nil
}

// jobs are those of all clusters.
func (d *Daemon) jobs() []schedule.Job {
	var out []schedule.Job
	for _, g := range d.all() {
		out = append(out, g.jobs()...)
	}
	return out
}

// replace puts the guards of a configuration in the place of those before.
func (d *Daemon) replace(conf *config.Config, guards []*guard) (before []*guard) {
	for _, g := range guards {
		d.metrics.prepare(g.conf.Name)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	before = d.guards
	for _, old := range before {
		for _, g := range guards {
			if g.known == old.known && !g.line.Equal(old.line) {
				g.known.change(func(s *standing) { s.changed = d.wall() })
			}
		}
	}
	d.conf, d.guards = conf, guards
	return before
}

// retire lets go of the guards that are not used any more.
func (d *Daemon) retire(old, current []*guard) {
	for _, g := range old {
		if slices.Contains(current, g) {
			continue
		}
		if !slices.ContainsFunc(current, func(other *guard) bool { return other.known == g.known }) {
			g.known.giveUp(errors.New("the cluster was taken out of the configuration, or got another repository"))
		}
		g.retire()
	}
}

// forget drops the counters of a cluster unless it is guarded.
func (d *Daemon) forget(cluster string) {
	if _, err := d.find(cluster); err != nil {
		d.metrics.forget(cluster)
	}
}

// closeNew closes the guards that are not among the old ones.
func closeNew(guards, old []*guard) {
	for _, g := range guards {
		if !slices.Contains(old, g) {
			g.retire()
		}
	}
}
