package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/etcd-backupd/backupd/internal/cluster"
	"github.com/etcd-backupd/backupd/internal/config"
	"github.com/etcd-backupd/backupd/internal/duty"
	"github.com/etcd-backupd/backupd/internal/spool"
	"github.com/etcd-backupd/backupd/internal/storage"
)

// builder makes guards.
type builder struct {
	tool    string // the version that manifests record
	wall    func() time.Time
	log     *slog.Logger
	observe func(repository string, e storage.Event)
	closed  func(duty.Key) // called after a guard was closed
}

// guards makes the guards of a configuration. A guard of old whose part of the
// configuration has not changed is used again, with its knowledge and its running
// jobs.
func (b *builder) guards(ctx context.Context, conf *config.Config, old []*guard) ([]*guard, error) {
	stores, err := b.stores(ctx, conf)
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
		g, err := b.guard(c, conf, stores[c.Repository])
		if err != nil {
			retire(out, old)
			return nil, fmt.Errorf("cluster %s: %w", c.Name, err)
		}
		g.inherit(old)
		out = append(out, g)
	}
	return out, nil
}

// stores opens each repository once, for all its clusters.
func (b *builder) stores(ctx context.Context, conf *config.Config) (map[string]storage.Store, error) {
	out := map[string]storage.Store{}
	for _, name := range slices.Sorted(maps.Keys(conf.Repositories)) {
		repo := conf.Repositories[name]
		s, err := repo.Open(ctx, b.log.With("repository", name))
		if err != nil {
			return nil, fmt.Errorf("repository %s: %w", name, err)
		}
		out[name] = storage.WithObserver(s, func(e storage.Event) { b.observe(name, e) })
	}
	return out, nil
}

func (b *builder) guard(c config.Cluster, conf *config.Config, store storage.Store) (*guard, error) {
	repo := conf.Repositories[c.Repository]
	log := b.log.With("cluster", c.Name)
	client, err := c.ClientConfig()
	if err != nil {
		return nil, err
	}
	client.Log = log
	g := &guard{conf: c, repo: repo, spool: conf.Daemon.Spool, Subject: &duty.Subject{
		Key: duty.Key{Repository: c.Repository, Cluster: c.Name}, Address: repo.Flags(repo.URL), Store: store,
		MayCreate: repo.CreateIfMissing, Spool: spoolOf(conf, b.log), LocalEndpoint: c.LocalEndpoint,
		Known: duty.NewKnowledge(b.wall(), repo.ID), Log: log, Now: b.wall,
	}}
	g.closed = func() { b.closed(g.Key) }
	if err := g.assign(b.tool); err != nil {
		return nil, err
	}
	g.Etcd, err = cluster.New(client)
	return g, err
}

// spoolOf returns the folder into which databases are received.
func spoolOf(conf *config.Config, log *slog.Logger) spool.Folder {
	return spool.Folder{Dir: conf.Daemon.Spool.Folder, Limit: conf.Daemon.Spool.MaxBytes, Keep: true, Log: log}
}
