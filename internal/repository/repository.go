// Package repository is the part of a store that belongs to backupd: its identity,
// the snapshots in it, and the marks about them. It judges stored snapshots and
// orders them, and decides which may be restored. No other package does.
//
// A snapshot exists when its manifest does. The manifest is created last, after
// everything else was checked, and deleted first.
package repository

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/repository/catalog"
	"github.com/etcd-backupd/backupd/internal/repository/identity"
	"github.com/etcd-backupd/backupd/internal/storage"
)

// cleanUpTime bounds the cleaning up after a failure. It runs even if the context
// of the caller has ended.
const cleanUpTime = 10 * time.Second

// AbsentError is returned if there is no repository at an address, or another one than
// the one that is known.
type AbsentError = identity.AbsentError

// UnmarkedError is returned if snapshots are at an address, and the marker of their
// repository is gone.
type UnmarkedError = identity.UnmarkedError

// Repository is one root of a store, marked as ours, with any number of clusters.
type Repository struct {
	store   storage.Store
	id      string
	created time.Time
	made    bool
	doubt   error
}

// Open opens the repository at the root of s. known is its id, or empty. If there is no
// repository, or none of that id, it returns an [*AbsentError]; if only its marker is
// gone, an [*UnmarkedError]. A marker that is damaged is backup.ErrCorrupt, and an unknown
// format is refused by name.
func Open(ctx context.Context, s storage.Store, known string) (*Repository, error) {
	m, err := identity.Read(ctx, storage.Root{Store: s}, known)
	return opened(s, m, false, err)
}

// OpenToRead is [Open] for those who only read. A repository whose marker is gone, damaged
// or denied can be read if its snapshots tell which one it is: see [Repository.Doubt].
// Nothing can be written there.
func OpenToRead(ctx context.Context, s storage.Store, known string) (*Repository, error) {
	m, doubt, err := identity.Infer(ctx, storage.Root{Store: s}, known)
	if doubt == nil {
		return opened(s, m, false, err)
	}
	return &Repository{store: storage.ReadOnly(s, doubt), id: m.ID, created: m.CreatedAt, doubt: doubt}, nil
}

// OpenToWrite is [Open] for those who know the repository, and may write to it: if its
// marker is gone, it puts the same one back, see [Repository.Made].
func OpenToWrite(ctx context.Context, s storage.Store, known string) (*Repository, error) {
	m, made, err := identity.Mend(ctx, storage.Root{Store: s}, known)
	return opened(s, m, made, err)
}

// PutBack makes the marker of the repository id again, where e was found. An empty id makes
// a new repository of what is there.
func PutBack(ctx context.Context, s storage.Store, e *UnmarkedError, id string) (*Repository, error) {
	m, made, err := identity.PutBack(ctx, storage.Root{Store: s}, e, id)
	return opened(s, m, made, err)
}

// Create opens the repository at the root of s, and makes it if there is none: see
// [Repository.Made]. It refuses the data directory of an etcd member, also below it, and a
// store that does not list in the order of keys, before anything is entrusted to it.
func Create(ctx context.Context, s storage.Store) (*Repository, error) {
	m, made, err := identity.Make(ctx, storage.Root{Store: s}, func() error {
		if err := storage.CheckPlace(s); err != nil {
			return err
		}
		return storage.CheckOrder(ctx, s)
	})
	return opened(s, m, made, err)
}

func opened(s storage.Store, m backup.Marker, made bool, err error) (*Repository, error) {
	if err != nil {
		return nil, err
	}
	return &Repository{store: s, id: m.ID, created: m.CreatedAt, made: made}, nil
}

// At returns the repository of a known id at the root of s without reading anything,
// because it may be down. For those who only read the id may be empty.
func At(s storage.Store, id string) *Repository { return &Repository{store: s, id: id} }

// Check reads the marker again. It returns an [*AbsentError] if the repository is not
// there any more: its disk may have been unmounted, or another one mounted, and then
// nothing must be entrusted to what is there.
func (r *Repository) Check(ctx context.Context) error {
	if r.id == "" {
		return errors.New("nobody knows which repository this is: it can only be read")
	}
	_, err := identity.Read(ctx, storage.Root{Store: r.store}, r.id)
	return err
}

// Made reports whether the marker was made just now, by [Create], [OpenToWrite] or [PutBack].
func (r *Repository) Made() bool { return r.made }

// Doubt is why only its snapshots tell which repository it is: see [OpenToRead]. It is nil
// if there is a marker.
func (r *Repository) Doubt() error { return r.doubt }

// ID is the random id of the repository. It is empty only if [At] got none.
func (r *Repository) ID() string { return r.id }

// Store is the store that the repository is in. Who changes something there by
// itself must follow the rules of the format.
func (r *Repository) Store() storage.Store { return r.store }

// Created is when the repository was made; it is zero after [At].
func (r *Repository) Created() time.Time { return r.created }

// Clusters returns the names of all clusters, sorted.
func (r *Repository) Clusters(ctx context.Context) ([]string, error) {
	var out []string
	for name, err := range (storage.Root{Store: r.store}).Clusters(ctx) {
		if err != nil {
			return nil, fmt.Errorf("list clusters: %w", err)
		}
		ours, err := r.Cluster(name).objects.Exists(ctx)
		if err != nil {
			return nil, fmt.Errorf("list cluster %s: %w", name, err)
		}
		if ours {
			out = append(out, name)
		}
	}
	slices.Sort(out) // a listing has "a.b/" before "a/"
	return out, nil
}

// Cluster returns the part of the repository that belongs to one cluster; it may
// be empty. Every method refuses a name that cannot be the name of a cluster.
func (r *Repository) Cluster(name string) *Cluster {
	return &Cluster{repo: r, objects: catalog.Catalog{Store: r.store, Cluster: name}}
}

// AbortStaleUploads removes the parts of uploads that never finished, of all
// clusters.
func (r *Repository) AbortStaleUploads(ctx context.Context) (int, error) {
	return storage.AbortStaleUploads(ctx, r.store, LitterAge)
}

// Cluster is the part of a repository that belongs to one cluster.
type Cluster struct {
	repo    *Repository
	objects catalog.Catalog
	lenient bool
}

// Lenient returns the cluster with overviews that count unconfirmed snapshots like
// verified ones. It is for who has switched the comparison with the members off.
func (c *Cluster) Lenient(on bool) *Cluster { return &Cluster{c.repo, c.objects, on} }

// Name is the name that the operator gave the cluster.
func (c *Cluster) Name() string { return c.objects.Cluster }

// Repository is the repository that the cluster's snapshots are in.
func (c *Cluster) Repository() *Repository { return c.repo }

// Marks are what is stated about the cluster's snapshots.
func (c *Cluster) Marks() Marks { return Marks{c.repo.store, c.objects} }

// Data is the cluster's data objects.
func (c *Cluster) Data() Data { return Data{c.repo.store, c.objects.Cluster} }
