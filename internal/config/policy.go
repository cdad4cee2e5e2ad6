package config

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/etcd-backupd/backupd/internal/location"
)

// Policy is the smallest IAM policy for one repository.
type Policy struct {
	Repository string          `json:"repository"`
	Policy     json.RawMessage `json:"policy"`
}

// Policies returns the policies of all repositories in buckets, by name. A policy
// allows deletion only if retention removes snapshots from the repository.
func (c *Config) Policies() ([]Policy, error) {
	out := []Policy{}
	for _, name := range sortedKeys(c.Repositories) {
		repo := c.Repositories[name]
		loc, err := location.Parse(repo.URL)
		if err != nil {
			return nil, fmt.Errorf("repository %s: %w", name, err)
		}
		removes := slices.ContainsFunc(c.Clusters, func(cluster Cluster) bool {
			return cluster.Repository == name && cluster.Policy().HasRule()
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
