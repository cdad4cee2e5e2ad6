package daemon

import (
	"context"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/etcd-backupd/backupd/internal/cluster"
	"github.com/etcd-backupd/backupd/internal/codec"
	"github.com/etcd-backupd/backupd/internal/config"
	"github.com/etcd-backupd/backupd/internal/duty"
	"github.com/etcd-backupd/backupd/internal/schedule"
	"github.com/etcd-backupd/backupd/internal/snapshot"
	"github.com/etcd-backupd/backupd/internal/spool"
	"github.com/etcd-backupd/backupd/internal/storage"
)

// newGuards makes the guards of a configuration. A guard of old whose part of the
// configuration has not changed is used again, with its knowledge and its running
// jobs.
func (d *Daemon) newGuards(ctx context.Context, conf *config.Config, old []*guard) ([]*guard, error) {
	stores, err := d.openRepositories(ctx, conf)
	if err != nil {
		return nil, err
	}
	var out []*guard
	for _, c := range conf.Clusters {
		repo := conf.Repositories[c.Repository]
		i := slices.IndexFunc(old, func(g *guard) bool {
			return reflect.DeepEqual(g.conf, c) && reflect.DeepEqual(g.repo, repo) && g.spool == conf.Daemon.Spool
		})
		if i >= 0 {
			out = append(out, old[i])
			continue
		}
		g, err := d.newGuard(c, conf, stores[c.Repository])
		if err != nil {
			retire(out, old)
			return nil, fmt.Errorf("cluster %s: %w", c.Name, err)
		}
		g.inherit(old)
		out = append(out, g)
	}
	return out, nil
}

// inherit takes over the knowledge of the same cluster in the same repository.
func (g *guard) inherit(old []*guard) {
	for _, before := range old {
		if before.Key == g.Key && reflect.DeepEqual(before.repo, g.repo) {
			g.Known = before.Known
		}
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

func (d *Daemon) newGuard(c config.Cluster, conf *config.Config, store storage.Store) (*guard, error) {
	repo := conf.Repositories[c.Repository]
	log := d.log.With("cluster", c.Name)
	client, err := c.ClientConfig()
	if err != nil {
		return nil, err
	}
	client.Log = log
	g := &guard{daemon: d, conf: c, repo: repo, spool: conf.Daemon.Spool, Subject: &duty.Subject{
		Key: duty.Key{Repository: c.Repository, Cluster: c.Name}, Store: store, Spool: d.spool(conf),
		LocalEndpoint: c.LocalEndpoint, Known: duty.NewKnowledge(d.wall()), Log: log, Now: d.wall,
	}}
	if err := g.assign(); err != nil {
		return nil, err
	}
	g.Etcd, err = cluster.New(client)
	return g, err
}

// assign makes the duties of the cluster from its configuration.
func (g *guard) assign() (err error) {
	c, d := g.conf, g.daemon
	policy := c.Retention.Policy()
	g.backup = duty.Backup{
		Subject: g.Subject, Jitter: c.Snapshot.Jitter, MaxAge: c.Snapshot.MaxAge, Policy: policy,
		Codec: g.repo.Codec, Tool: d.opts.Version.Tool,
	}
	if !c.Snapshot.HashCheck {
		g.backup.Hashes = snapshot.SkipHashes
	}
	g.verify = duty.Verify{Subject: g.Subject, Policy: policy}
	g.defrag = duty.Defragment{Subject: g.Subject, Threshold: c.Defragment.Threshold}
	if g.backup.Line, err = c.Snapshot.Line(); err != nil {
		return err
	}
	g.backup.Longest = g.backup.Line.Longest(time.Now()) // computed once: it takes milliseconds
	if g.verifyLine, err = c.Verify.Line(); err != nil {
		return err
	}
	if g.defragLine, err = c.Defragment.Line(); err != nil {
		return err
	}
	if _, err = g.repo.Codec(); err != nil {
		return err
	}
	g.verify.Identities, err = codec.ReadIdentities(c.Verify.IdentityFiles)
	return err
}

// spool returns the folder into which databases are received.
func (d *Daemon) spool(conf *config.Config) spool.Folder {
	return spool.Folder{Dir: conf.Daemon.Spool.Folder, Limit: conf.Daemon.Spool.MaxBytes, Keep: true, Log: d.log}
}

// observe counts the requests to a repository.
func (d *Daemon) observe(s storage.Store, repository string) storage.Store {
	return storage.WithObserver(s, func(e storage.Event) { d.metrics.store(repository, e) })
}

// jobs returns the jobs of all clusters.
func (d *Daemon) jobs() []schedule.Job {
	var out []schedule.Job
	for _, g := range d.all() {
		out = append(out, g.jobs()...)
	}
	return out
}

// replace sets the guards of a new configuration and returns the old ones.
func (d *Daemon) replace(conf *config.Config, guards []*guard) (before []*guard) {
	for _, g := range guards {
		d.metrics.prepare(g.Key)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	before = d.guards
	for _, old := range before {
		for _, g := range guards {
			if g.Known == old.Known && !g.backup.Line.Equal(old.backup.Line) {
				g.Known.Reschedule(d.wall())
			}
		}
	}
	d.conf, d.guards = conf, guards
	return before
}

// retire retires the guards of old that are not in current.
func retire(old, current []*guard) {
	for _, g := range old {
		if !slices.Contains(current, g) {
			g.retire()
		}
	}
}

// forget deletes the counters of a cluster that is no longer protected.
func (d *Daemon) forget(k duty.Key) {
	if _, err := d.guard(k); err != nil {
		d.metrics.forget(k)
	}
}
