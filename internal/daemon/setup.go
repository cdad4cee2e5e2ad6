package daemon

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"time"

	"github.com/etcd-backupd/backupd/internal/cluster/defrag"
	"github.com/etcd-backupd/backupd/internal/companion"
	"github.com/etcd-backupd/backupd/internal/config"
	"github.com/etcd-backupd/backupd/internal/duty"
	"github.com/etcd-backupd/backupd/internal/openfiles"
	"github.com/etcd-backupd/backupd/internal/retention"
	"github.com/etcd-backupd/backupd/internal/spool"
	"github.com/etcd-backupd/backupd/internal/storage"
)

// builder makes guards.
type builder struct {
	tool    string // the version that manifests record
	trace   companion.Trace
	wall    func() time.Time
	log     *slog.Logger
	files   *openfiles.Budget
	streams defrag.Streams
	observe func(repository string, e storage.Event)
	closed  func(duty.Key) // called after a guard was closed
	inForce func(*guard) (retention.Policy, bool)
	memory  *memory
}

// guards makes the guards of a configuration. A guard of old whose part of the
// configuration has not changed is used again, with its knowledge and its running
// jobs.
func (b *builder) guards(conf *config.Config, old []*guard) ([]*guard, error) {
	stores := b.stores(conf)
	var out []*guard
	for _, c := range conf.Clusters {
		repo := conf.Repositories[c.Repository]
		i := slices.IndexFunc(old, func(g *guard) bool {
			return g.fit.Load() && // or its files may be there by now
				reflect.DeepEqual(g.conf, c) && reflect.DeepEqual(g.repo, repo) && g.spool == conf.Daemon.Spool
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
		if err := g.equip(); err != nil {
			g.Log.Error("the cluster cannot be backed up", "repository", g.Repository, "err", err)
		}
		out = append(out, g)
	}
	return out, nil
}

// stores opens each repository once, for all its clusters.
func (b *builder) stores(conf *config.Config) map[string]storage.Store {
	out := map[string]storage.Store{}
	for _, name := range slices.Sorted(maps.Keys(conf.Repositories)) {
		repo := conf.Repositories[name]
		// Its files may be missing: that is a failure of its clusters alone.
		s := storage.Later(func(ctx context.Context) (storage.Store, error) {
			return repo.Open(ctx, b.log.With("repository", name))
		})
		out[name] = storage.WithObserver(s, func(e storage.Event) { b.observe(name, e) })
	}
	return out
}

func (b *builder) guard(c config.Cluster, conf *config.Config, store storage.Store) (*guard, error) {
	repo := conf.Repositories[c.Repository]
	log := b.log.With("cluster", c.Name)
	g := &guard{conf: c, repo: repo, spool: conf.Daemon.Spool, files: b.files, Subject: &duty.Subject{
		Key: duty.Key{Repository: c.Repository, Cluster: c.Name}, Address: repo.Flags(repo.URL), Store: store,
		Removal:   func(key string) string { return repo.Removal(repo.URL, key) },
		Reach:     duty.ReachWithin(c.Snapshot.Timeout),
		MayCreate: repo.CreateIfMissing, Spool: spoolOf(conf, b.log), Streams: &b.streams, LocalEndpoint: c.LocalEndpoint,
		Known: duty.NewKnowledge(b.wall(), repo.ID), Log: log, Now: b.wall,
	}}
	g.closed = func() { b.closed(g.Key) }
	if r := b.memory.recall(g.Spool, g.Key, g.Address); r != nil {
		g.Recall(r)
	}
	g.ready = func() error {
		if err := conf.CheckFilesOf(&c); err != nil {
			return err
		}
		_, err := repo.Open(context.Background(), log) // connects to nothing
		return err
	}
	if err := g.assign(b.tool, b.trace); err != nil {
		return nil, err
	}
	g.backup.InForce = func() (retention.Policy, bool) { return b.inForce(g) }
	return g, nil
}

// spoolOf returns the folder into which databases are received.
func spoolOf(conf *config.Config, log *slog.Logger) spool.Folder {
	s := &conf.Daemon.Spool
	return spool.Folder{
		Dir: s.Folder, Limit: s.MaxBytes, MinFree: s.Reserve(), Setting: "daemon.spool.min-free", Keep: true, Log: log,
	}
}

// spool returns the folder of the configuration in force.
func (g *Guards) spool() spool.Folder { return spoolOf(g.fleet.config(), g.opts.Log) }
