package etcddb

import (
	"cmp"
	"maps"
	"slices"

	"github.com/etcd-backupd/backupd/internal/backup"
	"github.com/etcd-backupd/backupd/internal/etcddb/registry"
)

// kubernetes returns what was counted, or nil if nothing of Kubernetes is there.
func kubernetes(c *registry.Counter) *backup.Kubernetes {
	if c.Objects == 0 {
		return nil
	}
	k := &backup.Kubernetes{Objects: c.Objects, PlainSecrets: c.PlainSecrets}
	for _, key := range slices.SortedFunc(maps.Keys(c.Keys), func(a, b registry.Key) int {
		return cmp.Or(cmp.Compare(a.Provider, b.Provider), cmp.Compare(a.Name, b.Name))
	}) {
		k.Keys = append(k.Keys, backup.EncryptionKey{Provider: key.Provider, Name: key.Name, Objects: c.Keys[key]})
	}
	return k
}
