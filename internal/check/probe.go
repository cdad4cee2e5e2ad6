package check

import (
	"context"
	"encoding/json"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/etcd-backupd/backupd/internal/config"
	"github.com/etcd-backupd/backupd/internal/disk"
	"github.com/etcd-backupd/backupd/internal/location"
	"github.com/etcd-backupd/backupd/internal/storage"
)

// probe tries everything that a store must be able to do.
func probe(ctx context.Context, l *list, r *config.Repository, s storage.Store) {
	if loc := placeOf(r); loc.IsFolder() {
		defer removeFolders(loc.Path, disk.Existing(loc.Path))
	}
	for _, f := range storage.Probe(ctx, s) {
		l.add(f.Level, f.Hint, "%s: %s", f.Subject, f.Text)
	}
}

// removeFolders removes the empty folders that a probe leaves in a store of
// files, and the store's own folders down to the one that existed before: the
// daemon may run as another user, who should own them. Folders that are not
// empty stay.
func removeFolders(root, before string) {
	probes, _ := filepath.Glob(filepath.Join(root, storage.ProbePrefix+"*")) // the pattern is right
	for _, top := range probes {
		var folders []string
		_ = filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				folders = append(folders, path)
			}
			return nil
		})
		for _, folder := range slices.Backward(folders) { // those inside come later
			_ = os.Remove(folder)
		}
	}
	for ; root != before && os.Remove(root) == nil; root = filepath.Dir(root) {
	}
}

// Policy is the smallest IAM policy for one repository.
type Policy struct {
	Repository string          `json:"repository"`
	Policy     json.RawMessage `json:"policy"`
}

// Policies returns the policies of all repositories in buckets, by name. A policy
// allows deletion only if retention removes snapshots from the repository.
func Policies(conf *config.Config) ([]Policy, error) {
	out := []Policy{}
	for _, name := range slices.Sorted(maps.Keys(conf.Repositories)) {
		repo := conf.Repositories[name]
		loc, err := location.Parse(repo.URL)
		if err != nil {
			return nil, fmt.Errorf("repository %s: %w", name, err)
		}
		removes := slices.ContainsFunc(conf.Clusters, func(c config.Cluster) bool {
			return c.Repository == name && c.Retention.Policy().HasRule()
		})
		text, err := loc.Policy(repo.Options, removes)
		if err != nil {
			return nil, fmt.Errorf("repository %s: %w", name, err)
		}
		if text == "" {
			continue // a folder
		}
		out = append(out, Policy{name, json.RawMessage(text)})
	}
	return out, nil
}

// foreign reports whether a store holds anything but the remains of a probe.
func foreign(ctx context.Context, s storage.Store) (bool, error) {
	for obj, err := range s.List(ctx, "", "") {
		if err != nil {
			return false, err
		}
		if !strings.HasPrefix(obj.Key, storage.ProbePrefix) {
			return true, nil
		}
	}
	return false, nil
}
