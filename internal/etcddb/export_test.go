package etcddb

import bolt "go.etcd.io/bbolt"

// BumpForTest bumps a database in place, in this process.
func BumpForTest(path string, amount uint64) error {
	return update(path, 0, func(tx *bolt.Tx) error { return bump(tx, amount) })
}
