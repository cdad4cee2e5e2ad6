package snapshot

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/storage"
)

// Delete removes a snapshot: it stops existing before it stops being whole, so
// the manifest goes first. Deleting again what was deleted in part removes the
// rest; err wraps [fs.ErrNotExist] only when nothing at all was there. A pin
// does not hold Delete up: who calls it must have looked, see [FindPin].
func Delete(ctx context.Context, s storage.Store, e Entry) error {
	data, err := dataOf(ctx, s, e.Cluster, e.ID.DataName())
	if err != nil {
		return err
	}
	manifests, err := manifestsOf(ctx, s, e.Cluster, e.ID.DataName())
	if err != nil {
		return err
	}
	if len(manifests) == 0 && len(data) == 0 {
		return &NotFoundError{string(e.ID)}
	}
	for _, m := range manifests {
		if m.ID != e.ID {
			continue
		}
		if err := s.Delete(ctx, m.Key()); err != nil {
			return fmt.Errorf("delete manifest: %w", err)
		}
	}
	if slices.ContainsFunc(manifests, func(m Entry) bool { return m.ID != e.ID }) {
		return nil // somebody copied a manifest under another name: the data is its too
	}
	for _, o := range data {
		if err := s.Delete(ctx, o.Key); err != nil {
			return fmt.Errorf("delete data: %w", err)
		}
	}
	return nil
}

// dataOf lists a snapshot's data objects. They are found by name, not by what
// the manifest says, so that one whose manifest is damaged or gone can still be
// deleted.
func dataOf(ctx context.Context, s storage.Store, cluster string, name backup.DataName) ([]storage.Object, error) {
	var out []storage.Object
	for obj, err := range s.List(ctx, backup.DataPrefix(cluster)+string(name), "") {
		if err != nil {
			return nil, fmt.Errorf("look for data: %w", err)
		}
		if k, err := backup.ParseKey(obj.Key); err == nil && k.Kind == backup.KindData && k.Data == name {
			out = append(out, obj)
		}
	}
	return out, nil
}

// manifestsOf lists the manifests that name a data object: one or none, unless
// somebody copied objects.
func manifestsOf(ctx context.Context, s storage.Store, cluster string, name backup.DataName) ([]Entry, error) {
	second, _, _ := strings.Cut(string(name), "-")
	var out []Entry
	for obj, err := range s.List(ctx, backup.ManifestPrefix(cluster)+second+"-r", "") {
		if err != nil {
			return nil, fmt.Errorf("look for manifest: %w", err)
		}
		if k, err := backup.ParseKey(obj.Key); err == nil && k.Kind == backup.KindManifest && k.ID.DataName() == name {
			out = append(out, entryOf(k))
		}
	}
	return out, nil
}
