// Package catalog finds the objects that a store holds of one cluster by their
// names. It judges nothing, and it parses no content.
package catalog

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"iter"
	"strings"

	"github.com/etcd-backupd/backupd/internal/backup"
)

// Store is the part of a storage.Store that a catalog reads.
type Store interface {
	Open(ctx context.Context, key string, offset, length int64) (io.ReadCloser, error)
	Stat(ctx context.Context, key string) (backup.Object, error)
	List(ctx context.Context, prefix, after string) iter.Seq2[backup.Object, error]
}

// Catalog is the part of a store that one cluster has.
type Catalog struct {
	Store   Store
	Cluster string
}

// Object is an object of ours with its parsed name.
type Object struct {
	backup.Object
	Name backup.Key
}

// List yields our objects below a prefix, with their parsed names. It passes over
// foreign ones.
func (c Catalog) List(ctx context.Context, prefix, after string) iter.Seq2[Object, error] {
	return c.list(ctx, prefix, after, ours)
}

func (c Catalog) list(ctx context.Context, prefix, after string, w wanted) iter.Seq2[Object, error] {
	return func(yield func(Object, error) bool) {
		for obj, err := range c.Store.List(ctx, prefix, after) {
			if err != nil {
				yield(Object{}, err)
				return
			}
			if k, ok := w(obj.Key); ok && !yield(Object{obj, k}, nil) {
				return
			}
		}
	}
}

// All returns all our objects below a prefix.
func (c Catalog) All(ctx context.Context, prefix string) ([]Object, error) {
	return c.all(ctx, prefix, ours)
}

func (c Catalog) all(ctx context.Context, prefix string, w wanted) ([]Object, error) {
	var out []Object
	for obj, err := range c.list(ctx, prefix, "", w) {
		if err != nil {
			return nil, fmt.Errorf("list %s: %w", prefix, err)
		}
		out = append(out, obj)
	}
	return out, nil
}

// Exists reports whether any object of ours is below the cluster's name.
func (c Catalog) Exists(ctx context.Context) (bool, error) {
	for _, prefix := range []string{
		backup.ManifestPrefix(c.Cluster), backup.DataPrefix(c.Cluster), backup.MarkPrefix(c.Cluster),
	} {
		for _, err := range c.List(ctx, prefix, "") {
			return err == nil, err
		}
	}
	return false, nil
}

// Data lists the data objects of a snapshot. It finds them by name and does not
// need the manifest, so that a snapshot whose manifest is damaged or gone can
// still be deleted.
func (c Catalog) Data(ctx context.Context, name backup.DataName) ([]backup.Object, error) {
	all, err := c.All(ctx, backup.DataPrefix(c.Cluster)+string(name))
	var out []backup.Object
	for _, obj := range all {
		if obj.Name.Data == name {
			out = append(out, obj.Object)
		}
	}
	return out, err
}

// Manifests lists the manifests that refer to a data object: one or none, unless
// somebody copied objects.
func (c Catalog) Manifests(ctx context.Context, name backup.DataName) ([]backup.Key, error) {
	all, err := c.All(ctx, backup.ManifestPrefix(c.Cluster)+SecondOf(string(name))+"-r")
	var out []backup.Key
	for _, obj := range all {
		if obj.Name.ID.DataName() == name {
			out = append(out, obj.Name)
		}
	}
	return out, err
}

// Claimed reports whether anything among the manifests is of the snapshot with that
// data: a manifest, or an object that another version of backupd may have written.
func (c Catalog) Claimed(ctx context.Context, name backup.DataName) (bool, error) {
	prefix := backup.ManifestPrefix(c.Cluster) + SecondOf(string(name)) + "-r"
	for obj, err := range c.Store.List(ctx, prefix, "") {
		if err != nil {
			return false, fmt.Errorf("list %s: %w", prefix, err)
		}
		if claims(obj.Key, name) {
			return true, nil
		}
	}
	return false, nil
}

// claims reports whether an object among the manifests has the time and the random
// part of the data's name.
func claims(key string, name backup.DataName) bool {
	second, random, _ := strings.Cut(string(name), "-")
	rest, ok := strings.CutPrefix(belowFolder(key), second+"-r")
	return ok && strings.Contains(rest, random)
}

// belowFolder returns the name of an object below the folder of its kind.
func belowFolder(key string) string {
	parts := strings.SplitN(key, "/", 3)
	return parts[len(parts)-1]
}

// Has reports whether an object exists. It does not read it.
func (c Catalog) Has(ctx context.Context, k backup.Key) (bool, error) {
	_, err := c.Store.Stat(ctx, k.String())
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look for %s: %w", k.Kind, err)
	}
	return true, nil
}

// Read reads an object that should have at most limit bytes. Of a larger one it
// returns one byte more than that.
func (c Catalog) Read(ctx context.Context, key string, limit int64) ([]byte, error) {
	r, err := c.Store.Open(ctx, key, 0, limit+1)
	if err != nil {
		return nil, err
	}
	raw, err := io.ReadAll(io.LimitReader(r, limit+1))
	return raw, errors.Join(err, r.Close())
}

// SecondOf returns the time that an id or a data name begins with.
func SecondOf(name string) string {
	second, _, _ := strings.Cut(name, "-")
	return second
}
