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

// Repository is one root of a store, marked as ours, with any number of clusters.
type Repository struct {
	store   storage.Store
	id      string
	created time.Time
	made    bool
}

// Open opens the repository at the root of s. known is its id, or empty. If there is no
// repository, or none of that id, it returns an [*AbsentError]. A marker that is damaged
// is backup.ErrCorrupt, and an unknown format is refused by name.
func Open(ctx context.Context, s storage.Store, known string) (*Repository, error) {
	m, err := identity.Read(ctx, s, known)
	if err != nil {
		return nil, err
	}
	return &Repository{store: s, id: m.ID, created: m.CreatedAt}, nil
}

// Create opens the repository at the root of s, and makes it if there is none: see
// [Repository.Made]. It refuses the data directory of an etcd member.
func Create(ctx context.Context, s storage.Store) (*Repository, error) {
	m, made, err := identity.Make(ctx, s)
	if err != nil {
		return nil, err
	}
	return &Repository{s, m.ID, m.CreatedAt, made}, nil
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
	_, err := identity.Read(ctx, r.store, r.id)
	return err
}

// Made reports whether [Create] made the repository.
func (r *Repository) Made() bool { return r.made }

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
	for f, err := range storage.Folders(ctx, r.store, "") {
		if err != nil {
			return nil, fmt.Errorf("list clusters: %w", err)
		}
		if backup.CheckClusterName(f.Name) != nil {
			continue // not ours
		}
		ours, err := r.Cluster(f.Name).objects.Exists(ctx)
		if err != nil {
			return nil, fmt.Errorf("list cluster %s: %w", f.Name, err)
		}
		if ours {
			out = append(out, f.Name)
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
