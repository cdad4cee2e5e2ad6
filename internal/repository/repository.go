// Package repository is the part of a store that belongs to backupd: its identity,
// the snapshots in it, and the marks about them. It judges stored snapshots and
// orders them, and decides which may be restored. No other package does.
//
// A snapshot exists when its manifest does. The manifest is created last, after
// everything else was checked, and deleted first.
package repository

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"time"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/repository/catalog"
	"github.com/etcd-backupd/backupd/internal/storage"
)

// cleanUpTime bounds the cleaning up after a failure. It runs even if the context
// of the caller has ended.
const cleanUpTime = 10 * time.Second

// Repository is one root of a store, marked as ours, with any number of clusters.
type Repository struct {
	store   storage.Store
	id      string
	created time.Time
}

// Open opens the repository at the root of s. known is the id that it had before,
// or empty. If there is no longer a repository of that id, the error does not say
// that it does not exist: its disk may not be mounted. If none was known and there
// is none, the error wraps fs.ErrNotExist. A marker that does not parse is
// backup.ErrCorrupt, and an unknown format is refused by name.
func Open(ctx context.Context, s storage.Store, known string) (*Repository, error) {
	m, err := readMarker(ctx, s)
	switch {
	case known != "" && errors.Is(err, fs.ErrNotExist):
		// The cause is added as text, so that the error does not match
		// fs.ErrNotExist: a missing marker here means that the repository is down.
		err = replaced(fmt.Errorf("repository %s is no longer at its address: %v", known, err))
	case err == nil && known != "" && m.ID != known:
		err = replaced(fmt.Errorf("another repository (%s) is at the address of repository %s", m.ID, known))
	}
	if err != nil {
		return nil, err
	}
	return &Repository{s, m.ID, m.CreatedAt}, nil
}

func replaced(err error) error {
	return backup.WithHint(err,
		"mount its disk, or find out who removed it; if it was replaced on purpose, restart the daemon")
}

// Create opens the repository at the root of s, and makes it if there is none.
func Create(ctx context.Context, s storage.Store) (*Repository, error) {
	// To open it first is more than a shortcut: a store that silently ignores
	// create-if-absent would give an old repository a new identity.
	r, err := Open(ctx, s, "")
	if !errors.Is(err, fs.ErrNotExist) {
		return r, err
	}
	m := backup.NewMarker(time.Now())
	raw, err := m.Marshal()
	if err != nil {
		return nil, err
	}
	err = s.Create(ctx, backup.MarkerKey, bytes.NewReader(raw))
	if errors.Is(err, fs.ErrExist) {
		return Open(ctx, s, "") // another process was quicker
	}
	if err != nil {
		return nil, fmt.Errorf("create repository: %w", err)
	}
	return &Repository{s, m.ID, m.CreatedAt}, nil
}

// At returns the repository of a known id at the root of s without reading
// anything, because it may be down.
func At(s storage.Store, id string) *Repository { return &Repository{store: s, id: id} }

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

func readMarker(ctx context.Context, s storage.Store) (backup.Marker, error) {
	r, err := s.Open(ctx, backup.MarkerKey, 0, backup.MaxMarkerBytes)
	var raw []byte
	if err == nil {
		raw, err = io.ReadAll(r)
		err = errors.Join(err, r.Close())
	}
	if errors.Is(err, fs.ErrNotExist) {
		return backup.Marker{}, fmt.Errorf("not a backupd repository: %w", err)
	}
	if err != nil {
		return backup.Marker{}, fmt.Errorf("open repository: %w", err)
	}
	m, err := backup.ParseMarker(raw)
	if err != nil {
		return backup.Marker{}, fmt.Errorf("open repository: %s: %w", backup.MarkerKey, err)
	}
	return m, nil
}
